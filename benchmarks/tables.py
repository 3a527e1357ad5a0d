"""Write the tables of docs/ from the JSON files: no figure there is typed by hand.

    python -m benchmarks.tables [--check]

A region `<!-- table:NAME -->` ... `<!-- /table -->` holds what `RENDERERS[NAME]` makes of the
results `NAME*.json`; a region without results says how to make them.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT
from benchmarks.tables_diffusion import (
    development_table,
    diffusion_table,
    draws_table,
    less_control_table,
)
from benchmarks.tables_facts import facts_table
from benchmarks.tables_forward_inf import forward_inf_table
from benchmarks.tables_lava import (
    lava_contrast_table,
    lava_distance_table,
    lava_memory_table,
    lava_on_paper_table,
    lava_scale_table,
    lava_table,
)
from benchmarks.tables_lava_detection import lava_detection_table
from benchmarks.tables_lds import lds_settings_table, lds_table
from benchmarks.tables_lds_beyond import lds_beyond_table
from benchmarks.tables_leakage import leakage_table
from benchmarks.tables_leakage_kinds import leakage_development_table, leakage_kinds_table
from benchmarks.tables_membership import clip_table, membership_table
from benchmarks.tables_memorisation import memorisation_table
from benchmarks.tables_memorisation_influence import memorisation_influence_table
from benchmarks.tables_memory import memory_table
from benchmarks.tables_mirrored import mirrored_hypothesis_table, retraining_table
from benchmarks.tables_mislabelled import mislabelled_table
from benchmarks.tables_planner import planner_table

PAGES = sorted((ROOT / "docs").glob("*.md"))
RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "facts": facts_table,
    "facts_development": facts_table,
    "facts_development_reduced": facts_table,
    "facts_reduced": facts_table,
    "diffusion": diffusion_table,
    "diffusion_development": development_table,
    "diffusion_draws": draws_table,
    "diffusion_less_control": less_control_table,
    "forward_inf": forward_inf_table,
    "lava": lava_table,
    "lava_contrast": lava_contrast_table,
    "lava_detection": lava_detection_table,
    "lava_distance": lava_distance_table,
    "lava_memory": lava_memory_table,
    "lava_on_paper": lava_on_paper_table,
    "lava_scale": lava_scale_table,
    "lds": lds_table,
    "lds_beyond": lds_beyond_table,
    "lds_settings": lds_settings_table,
    "leakage": leakage_table,
    "leakage_development": leakage_development_table,
    "leakage_kinds": leakage_kinds_table,
    "membership": membership_table,
    "clip": clip_table,
    "memorisation": memorisation_table,
    "memorisation_influence": memorisation_influence_table,
    "memory": memory_table,
    "planner": planner_table,
    "mislabelled": mislabelled_table,
    "mirrored_hypothesis": mirrored_hypothesis_table,
    "retraining": retraining_table,
}
_REGION = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def fill(page: str, results: Path) -> str:
    """The page with every known region made anew; unknown ones stay as they are."""

    def region(match: re.Match[str]) -> str:
        opening, name, closing = match.groups()
        if name not in RENDERERS:
            return match[0]
        parts = [
            RENDERERS[name](document) + "\n\n" + provenance(document)
            for file in sorted(results.glob(f"{name}*.json"))
            if _owner(file.stem) == name
            if (document := json.loads(file.read_text()))
        ]
        body = "\n\n".join(parts) or f"No results yet: `python -m benchmarks.{name}`."
        return f"{opening}\n{body}\n\n{closing}"

    return _REGION.sub(region, page)


def _owner(stem: str) -> str:
    """The benchmark that wrote a file: the longest name that its own begins with."""
    return max((name for name in RENDERERS if stem.startswith(name)), key=len, default="")


def provenance(document: dict[str, Any]) -> str:
    """One line: when, where and with what."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    quick = " **Quick sizes: shows that it runs, not how fast.**" if _quick(document) else ""
    return (
        f"*{document['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']:g} GiB; {versions}.*{quick}"
    )


def _quick(document: dict[str, Any]) -> bool:
    return bool(document["settings"].get("quick"))


def main() -> None:
    """Write the page, or check that it is up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES)
    arguments = parser.parse_args()
    for path in arguments.page:
        page = path.read_text()
        filled = fill(page, arguments.results)
        if arguments.check and filled != page:
            sys.exit(f"{path} is out of date: run python -m benchmarks.tables")
        if not arguments.check:
            path.write_text(filled)


if __name__ == "__main__":
    main()
