"""How much of the mean cost should `lava` take off? The study behind its default.

    python -m benchmarks.lava_contrast [--sets digits,trec] [--solvers annealed] [--seeds 2]
        [--quick]

The sets and corruptions of `benchmarks.lava_detection`, on seeds from 100 on, which no other table
shows. Values are linear in the contrast, so two solves give the whole curves: of a fixed share of
the mean cost, and of a quarter of it that is less where it would spread further than a share of
what the potentials do.
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, cores, read_results, write_result
from benchmarks.detection_corruptions import spoil
from benchmarks.detection_sets import DATA, benchmarks
from jaxinf import valuation
from jaxinf.evaluation import detection_auc

FIRST_SEED = 100
CONTRASTS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
OF_SPREAD = (0.3, 0.4, 0.5, 0.6, 0.7)
SOLVERS: dict[str, dict[str, Any]] = {
    "annealed": {"solver": "annealed"},
    "semi-relaxed": {"solver": "semi-relaxed"},
    "one-pass": {"solver": "one-pass"},
    "released": {"solver": "reference", "label_cost": "reference"},
}


def curves(name: str, corruption: str, seeds: int, solvers: list[str]) -> list[dict[str, Any]]:
    """AUROC of every solver at every contrast, by seed."""
    series: dict[tuple[str, str, float], list[float]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        sets = spoil(benchmarks()[name], corruption, seed)
        for solver in solvers:
            none, whole = (
                np.asarray(
                    valuation.lava(*sets[:4], contrast=end, num_checks=0, **SOLVERS[solver]).values
                )
                for end in (0.0, 1.0)
            )
            mean_costs = whole - none
            ratio = np.std(none) / np.std(mean_costs)
            shares = [("mean cost", c, c) for c in CONTRASTS]
            shares += [("spread", c, min(0.25, c * ratio)) for c in OF_SPREAD]
            for unit, contrast, share in shares:
                values = none + share * mean_costs
                if sets.source is not None:
                    values = np.bincount(sets.source, values) / np.bincount(sets.source)
                auroc = float(detection_auc(-values, sets.is_bad))
                series.setdefault((solver, unit, contrast), []).append(auroc)
    return [
        {"set": name, "corruption": corruption, "solver": solver}
        | {"unit": unit, "contrast": contrast, "auroc": found}
        for (solver, unit, contrast), found in series.items()
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(benchmarks())
    parser.add_argument("--sets", default=",".join(names if DATA.is_dir() else ["digits"]))
    parser.add_argument("--solvers", default=",".join(SOLVERS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="digits, one seed")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_contrast.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", valuation.ValuationWarning)
    sets = ["digits"] if arguments.quick else arguments.sets.split(",")
    seeds = 1 if arguments.quick else arguments.seeds
    settings = {"seeds": seeds, "first_seed": FIRST_SEED, "cores": cores()}
    for name in sets:
        for corruption in benchmarks()[name].corruptions:
            # a run that was cut off goes on where it stopped
            rows = read_results(arguments.output)
            done = {_name(row) for row in rows}
            solvers = [
                each
                for each in arguments.solvers.split(",")
                if (name, corruption, each, "spread", OF_SPREAD[-1]) not in done
            ]
            if not solvers:
                continue
            found = curves(name, corruption, seeds, solvers)
            kept = {_name(row): row for row in read_results(arguments.output) + found}
            rows = list(kept.values())
            write_result(arguments.output, settings | {"quick": arguments.quick}, rows)


def _name(row: dict[str, Any]) -> tuple[str, str, str, str, float]:
    return row["set"], row["corruption"], row["solver"], row["unit"], row["contrast"]


if __name__ == "__main__":
    main()
