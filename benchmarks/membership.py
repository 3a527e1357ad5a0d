"""What membership attacks reach on CLIPs trained from scratch, beside blind controls, over seeds.

    python -m benchmarks.membership [--sets "digit scenes,emoji"] [--epochs 5,10,25] [--seeds 5]
                                    [--quick]

Members and non-members are dealt out at random from one set, whole groups at a time (emoji: one
concept is one group), anew for every seed. The settings of the attacks (transformations and weight
of AEA, threshold of WSA) are chosen on a model of its own with a deal of its own, and then held
fixed. A second part shows how the AUC falls as the training set grows at a fixed number of epochs.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import RESULTS, cores, write_result
from benchmarks.membership_sets import EMOJI, SETS
from benchmarks.membership_trials import (
    BATCH,
    QUICK,
    RATE,
    Effort,
    aea_scores,
    choose,
    figures,
    run_trial,
    similarity,
    wsa_scores,
)
from jaxinf.evaluation import mean_interval
from jaxinf.membership import TRANSFORMATIONS


def attacks(
    name: str, epochs: list[int], members: int, seeds: int, effort: Effort
) -> dict[str, Any]:
    """All attacks and controls on one set, for every number of epochs."""
    middle = epochs[len(epochs) // 2]
    validation = run_trial(SETS[name](members, 1000), middle, 1000, draws=effort.draws)
    settings = choose(validation, effort)
    print(f"{name}: chosen {settings}", flush=True)
    rows = []
    for number in epochs:
        found: dict[str, list[dict[str, float | None]]] = {}
        for seed in range(seeds):
            began = time.perf_counter()
            trial = run_trial(SETS[name](members, seed), number, seed, draws=effort.draws)
            scores = {
                "CSA": similarity(trial.features[trial.judged]),
                "AEA": aea_scores(trial, settings.transformations, settings.weight),
                "WSA": wsa_scores(trial, settings.threshold_std, effort.attack_seeds),
                **trial.blind,
            }
            for score, values in scores.items():
                if values is not None:
                    found.setdefault(score, []).append(figures(values, trial.is_member))
            taken = time.perf_counter() - began
            print(f"{name}, {number} epochs, seed {seed}: {taken:.0f} s", flush=True)
        for score, entries in found.items():
            row: dict[str, Any] = {"epochs": number, "score": score}
            row |= {"role": "control" if score in trial.blind else "attack"}
            rows.append(row | {figure: summary(entries, figure) for figure in ("auc", "tpr")})
            print(f"{name} | {number} | {score}: {rows[-1]['auc']['mean']:.3f}", flush=True)
    chosen = {
        "transformations": [type(TRANSFORMATIONS[at]).__name__ for at in settings.transformations],
        "weight": settings.weight,
        "threshold_std": settings.threshold_std,
    }
    return {"set": name, "members": members, "chosen": chosen, "rows": rows}


def growth(sizes: list[int], epochs: int, seeds: int) -> list[dict[str, Any]]:
    """AUC of CSA on digit scenes as the training set grows, the number of epochs held fixed."""
    rows = []
    for members in sizes:
        entries = []
        for seed in range(seeds):
            trial = run_trial(SETS["digit scenes"](members, seed), epochs, seed)
            scores = similarity(trial.features[trial.judged])
            gap = scores[trial.is_member].mean() - scores[~trial.is_member].mean()
            entries.append({**figures(scores, trial.is_member), "gap": float(gap)})
        row: dict[str, Any] = {"members": members, "epochs": epochs}
        rows.append(row | {name: summary(entries, name) for name in ("auc", "gap")})
        print(f"growth | {members}: {rows[-1]['auc']['mean']:.3f}", flush=True)
    return rows


def summary(entries: list[dict[str, float | None]], figure: str) -> dict[str, Any] | None:
    """Mean over seeds with its interval, and every seed's figure."""
    raw = [value for entry in entries if (value := entry[figure]) is not None]
    if not raw:
        return None
    found: dict[str, Any] = {"mean": float(np.mean(raw)), "raw": raw}
    if len(raw) > 1:
        interval = mean_interval(raw)
        found["interval"] = [interval.low, interval.high]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=None, help=f"of {', '.join(SETS)}")
    parser.add_argument("--epochs", default="5,10,25,50", help="numbers of epochs")
    parser.add_argument("--members", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", default="500,1000,2000,4000,8000", help="for the growth")
    parser.add_argument("--growth-epochs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="tiny, one seed: shows that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS / "membership.json")
    arguments = parser.parse_args()
    names = list(SETS) if EMOJI.is_file() else ["digit scenes"]
    names = arguments.sets.split(",") if arguments.sets else names
    epochs = [int(number) for number in arguments.epochs.split(",")]
    sizes = [int(number) for number in arguments.sizes.split(",")]
    members, seeds, growth_epochs = arguments.members, arguments.seeds, arguments.growth_epochs
    effort = Effort()
    if arguments.quick:
        effort = QUICK
        names, epochs, sizes = ["digit scenes"], [2], [300]
        members, seeds, growth_epochs = 300, 1, 1
    settings = {
        "seeds": seeds,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "draws": effort.draws,
        "attack_seeds": effort.attack_seeds,
        "cores": cores(),
        "device": jax.devices()[0].device_kind,
        "quick": arguments.quick,
    }
    results: dict[str, Any] = {"sets": [], "growth": []}
    for name in names:
        results["sets"].append(attacks(name, epochs, members, seeds, effort))
        write_result(arguments.output, settings, results)
    results["growth"] = growth(sizes, growth_epochs, seeds)
    write_result(arguments.output, settings, results)


if __name__ == "__main__":
    main()
