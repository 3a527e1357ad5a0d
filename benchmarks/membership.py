"""What membership attacks reach on CLIPs trained from scratch, beside blind controls, over seeds.

    python -m benchmarks.membership [--sets "digit scenes,emoji"] [--epochs 5,10,25] [--seeds 5]
                                    [--fresh] [--quick]

Members and non-members are dealt out at random from one set, whole groups at a time (emoji: one
concept is one group), anew for every seed. The settings of the attacks (transformations and weight
of AEA, threshold of WSA) are chosen on a model of its own with a deal of its own, and then held
fixed. A second part shows how the AUC falls as the training set grows at a fixed number of epochs.
Every trial is written as it ends; the same line again makes only the trials that are missing.
"""

import argparse
import time
from pathlib import Path

import jax

from benchmarks.common import RESULTS, cores
from benchmarks.membership_sets import EMOJI, SETS
from benchmarks.membership_store import Store
from benchmarks.membership_trials import (
    BATCH,
    GROWTH_BATCH,
    QUICK,
    RATE,
    WEIGHTS,
    Effort,
    aea_scores,
    choose,
    figures,
    run_trial,
    similarity,
    wsa_scores,
)


def attacks(
    store: Store, name: str, epochs: list[int], members: int, seeds: int, effort: Effort
) -> None:
    """All attacks and controls on one set, for every number of epochs; written trial by trial."""
    chosen = store.chosen(name)
    if chosen is None:
        middle = epochs[len(epochs) // 2]
        validation = run_trial(SETS[name](members, 1000), middle, 1000, draws=effort.draws)
        chosen = choose(validation, effort)
        store.choose(name, members, chosen, middle)
        print(f"{name}: chosen {chosen}", flush=True)
    for seed in range(seeds):
        for number in epochs:
            if store.has_trial(name, number, seed):
                continue
            began = time.perf_counter()
            trial = run_trial(SETS[name](members, seed), number, seed, draws=effort.draws)
            scores = {
                "CSA": similarity(trial.features[trial.judged]),
                "AEA": aea_scores(trial, chosen.transformations, chosen.weight),
                "WSA": wsa_scores(trial, chosen.threshold_std, effort.attack_seeds),
            }
            found = {
                score: figures(values, trial.is_member)
                for score, values in (scores | trial.blind).items()
                if values is not None
            }
            taken = time.perf_counter() - began
            store.add_trial(name, number, seed, found, controls=list(trial.blind), seconds=taken)
            said = ", ".join(f"{score} {each['auc']:.3f}" for score, each in found.items())
            print(f"{name}, {number} epochs, seed {seed}: {taken:.0f} s; {said}", flush=True)


def growth(store: Store, sizes: list[int], epochs: int, seeds: int) -> None:
    """AUC of CSA on digit scenes as the training set grows, the number of epochs held fixed."""
    for seed in range(seeds):
        for members in sizes:
            if store.has_growth(members, epochs, seed):
                continue
            pairs = SETS["digit scenes"](members, seed)
            trial = run_trial(pairs, epochs, seed, batch_size=GROWTH_BATCH)
            scores = similarity(trial.features[trial.judged])
            gap = scores[trial.is_member].mean() - scores[~trial.is_member].mean()
            found = {**figures(scores, trial.is_member), "gap": float(gap)}
            store.add_growth(members, epochs, seed, found)
            print(f"growth | {members}, seed {seed}: {found['auc']:.3f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=None, help=f"of {', '.join(SETS)}; a comma: none")
    parser.add_argument("--epochs", default="5,10,25,50", help="numbers of epochs")
    parser.add_argument("--members", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sizes", default="500,1000,2000,4000,8000", help="for the growth")
    parser.add_argument("--growth-epochs", type=int, default=10)
    parser.add_argument("--note", default="", help="why these sizes: kept with the settings")
    parser.add_argument("--fresh", action="store_true", help="do not go on from what is written")
    parser.add_argument("--quick", action="store_true", help="tiny, one seed: shows that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS / "membership.json")
    arguments = parser.parse_args()
    names = list(SETS) if EMOJI.is_file() else ["digit scenes"]
    names = [name for name in arguments.sets.split(",") if name] if arguments.sets else names
    epochs = [int(number) for number in arguments.epochs.split(",")]
    sizes = [int(number) for number in arguments.sizes.split(",") if number]
    members, seeds, growth_epochs = arguments.members, arguments.seeds, arguments.growth_epochs
    effort = Effort()
    if arguments.quick:
        effort = QUICK
        names, epochs, sizes = ["digit scenes"], [2], [300]
        members, seeds, growth_epochs = 300, 1, 1
    settings = {
        "batch_size": BATCH,
        "growth_batch_size": GROWTH_BATCH,
        "learning_rate": RATE,
        "draws": effort.draws,
        "attack_seeds": effort.attack_seeds,
        "thresholds": list(effort.thresholds),
        "weights": list(WEIGHTS),
        "members": members,
        "quick": arguments.quick,
    }
    device = {"cores": cores(), "device": jax.devices()[0].device_kind, "note": arguments.note}
    store = Store(arguments.output, settings, device, fresh=arguments.fresh)
    for name in names:
        attacks(store, name, epochs, members, seeds, effort)
    growth(store, sizes, growth_epochs, seeds)
    store.write()


if __name__ == "__main__":
    main()
