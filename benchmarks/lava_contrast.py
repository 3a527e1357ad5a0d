"""How much of the mean cost should `lava` take off? The study behind its default.

    python -m benchmarks.lava_contrast [--sets digits,trec] [--seeds 2] [--quick]

The sets and corruptions of `benchmarks.lava_detection`, on seeds from 100 on, which no other table
shows. Values are linear in the contrast, so two solves give the whole curve.
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
SOLVERS: dict[str, dict[str, Any]] = {
    "annealed": {"solver": "annealed"},
    "semi-relaxed": {"solver": "semi-relaxed"},
    "one-pass": {"solver": "one-pass"},
    "released": {"solver": "reference", "label_cost": "reference"},
}


def curves(name: str, corruption: str, seeds: int) -> list[dict[str, Any]]:
    """AUROC of every solver at every contrast, by seed."""
    series: dict[tuple[str, float], list[float]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        sets = spoil(benchmarks()[name], corruption, seed)
        for solver, options in SOLVERS.items():
            ends = [
                np.asarray(
                    valuation.lava(
                        sets.x, sets.y, sets.xv, sets.yv, contrast=end, num_checks=0, **options
                    ).values
                )
                for end in (0.0, 1.0)
            ]
            for contrast in CONTRASTS:
                values = (1 - contrast) * ends[0] + contrast * ends[1]
                if sets.source is not None:
                    values = np.bincount(sets.source, values) / np.bincount(sets.source)
                auroc = float(detection_auc(-values, sets.is_bad))
                series.setdefault((solver, contrast), []).append(auroc)
    return [
        {"set": name, "corruption": corruption, "solver": solver, "contrast": c, "auroc": found}
        for (solver, c), found in series.items()
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = list(benchmarks())
    parser.add_argument("--sets", default=",".join(names if DATA.is_dir() else ["digits"]))
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
            if any((row["set"], row["corruption"]) == (name, corruption) for row in rows):
                continue
            found = curves(name, corruption, seeds)
            rows = read_results(arguments.output) + found
            write_result(arguments.output, settings | {"quick": arguments.quick}, rows)


if __name__ == "__main__":
    main()
