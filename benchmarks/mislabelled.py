"""Which method finds wrong labels, and what is it worth to remove or relabel what it flags?

    python -m benchmarks.mislabelled [--sets fashion_mnist,cifar10,trec] [--seeds 5] [--quick]

The classifier of each set is trained on spoiled labels; every method then scores them (see
`benchmarks.mislabelled_sets` and `benchmarks.mislabelled_methods`). Reported: area under the ROC
curve, average precision, the share of wrong labels among the most suspect at the true count, the
noise rate as estimated, and the test accuracy after the flagged examples, as many as there are
wrong ones, are removed, or given the class that out-of-fold models find most probable.
Settings were chosen on a part of Fashion-MNIST that is not reported on.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import mislabelled_methods
from benchmarks.common import RESULTS, read_results, write_result
from benchmarks.mislabelled_methods import gather, network, suspicions, train_on
from benchmarks.mislabelled_rows import runs_of, summarise
from benchmarks.mislabelled_sets import KINDS, Case, Data, draw, sets
from jaxinf.applications.mislabelled import (
    METHODS,
    Evidence,
    confident_joint,
    mixture_noise_rate,
    suggest_labels,
)
from jaxinf.evaluation import average_precision, detection_auc, detection_curve

RATES = (0.01, 0.05, 0.2, 0.4)
# measured first, and shown in full
MAIN_RATE = 0.2
GAINS = (
    "loss",
    "out_of_fold_margin",
    "out_of_fold_logistic",
    "consensus",
    "trusted_consensus",
    "trusted_finite_loss",
    "trusted_grad_dot",
    "self_preconditioned",
    "trusted_logistic",
    "knn_shapley",
    "lava",
    "cleanlab",
)
# points of the detection curves that are kept
CUTS = np.linspace(0, 1, 41)


def measure(
    case: Case, evidence: Evidence, seconds: dict[str, float], wanted: list[str] | None = None
) -> dict[str, Any]:
    """Every method's figures on one training set, and its scores."""
    truth = case.truth.is_flipped
    found = {}
    for name, scores, spent in suspicions(case, evidence, wanted):
        needs = METHODS[name].needs if name in METHODS else ()
        inspected, share = detection_curve(scores, truth)
        found[name] = {
            "auc": detection_auc(scores, truth),
            "average_precision": average_precision(scores, truth),
            "found_at_true_count": float(share[truth.sum()]),
            "curve": np.interp(CUTS, inspected, share).round(4).tolist(),
            "seconds": spent,
            "seconds_with_models": spent + sum(seconds.get(need, 0) for need in needs),
            "scores": scores,
        }
    return found


def estimates(case: Case, evidence: Evidence) -> dict[str, float]:
    """The true rate, and both estimates of it."""
    logs = np.asarray(evidence.out_of_fold)
    labels, rows = evidence.labels, np.arange(len(logs))
    others = logs.copy()
    others[rows, labels] = -np.inf
    margins = others.max(axis=1) - logs[rows, labels]
    suggested = suggest_labels(logs)
    flipped = case.truth.is_flipped
    return {
        "true": float(flipped.mean()),
        "confident_joint": confident_joint(logs, labels).rate,
        "mixture": mixture_noise_rate(margins).rate,
        "suggestion_right": float((suggested == case.truth.original_labels)[flipped].mean()),
    }


def gains(
    case: Case, data: Data, evidence: Evidence, found: dict[str, Any], seed: int
) -> dict[str, dict[str, float]]:
    """Test accuracy after removing, and after relabelling, what each method flags."""
    module, count = network(data, case.num_classes), int(case.truth.is_flipped.sum())
    names = [name for name in GAINS if name in found]
    suggested = suggest_labels(np.asarray(evidence.out_of_fold))
    given, number = evidence.labels, len(evidence.labels)
    flagged = {}
    for name in names:
        flagged[name] = np.zeros(number, bool)
        flagged[name][np.argsort(-found[name]["scores"], kind="stable")[:count]] = True
    flagged["(the truth)"] = case.truth.is_flipped
    rng = np.random.default_rng(seed)
    flagged["(at random)"] = rng.permutation(case.truth.is_flipped)
    key = jax.random.fold_in(jax.random.key(seed), 99)
    run = lambda train, subsets: np.asarray(
        train_on(
            module,
            {"train": train, "test": case.test},
            subsets,
            mislabelled_methods.EPOCHS,
            key,
        )
    )
    removed = run(case.train, np.stack([~mask for mask in flagged.values()]))
    # every relabelled copy of the set stands beside the others: one subset is one copy
    labels = [np.where(mask, suggested, given) for mask in flagged.values()]
    labels += [case.truth.original_labels, given, given, given]
    copies = {
        "x": np.concatenate([case.train["x"]] * len(labels)),
        "y": np.concatenate(labels).astype(np.int32),
    }
    relabelled = run(copies, np.kron(np.eye(len(labels), dtype=bool), np.ones(number, bool)))
    noisy = float(relabelled[-3:].mean())
    result = {
        name: {"removed": float(a), "relabelled": float(b)}
        for name, a, b in zip(flagged, removed, relabelled, strict=False)
    }
    clean = float(relabelled[len(flagged)])
    result["(nothing done)"] = {"removed": noisy, "relabelled": noisy}
    result["(all labels right)"] = {"removed": clean, "relabelled": clean}
    return result


def run_seed(data: Data, kind: str, rate: float, seed: int, *, development: bool) -> dict[str, Any]:
    """All methods on one draw of one set."""
    case = draw(data, kind, rate, seed, development=development)
    evidence, seconds = gather(case, data, seed)
    found = measure(case, evidence, seconds)
    run: dict[str, Any] = {"rates": estimates(case, evidence)}
    run["gains"] = gains(case, data, evidence, found, seed)
    for entry in found.values():
        del entry["scores"]
    return run | {"methods": found}


def add_methods(
    data: Data, kind: str, rate: float, runs: list[dict[str, Any]], wanted: list[str], **part: bool
) -> bool:
    """Measure on every seed's draw the wanted methods that it lacks; whether there were any."""
    missing = [name for name in wanted if any(name not in run["methods"] for run in runs)]
    for seed, run in enumerate(runs if missing else ()):
        case = draw(data, kind, rate, seed, **part)
        evidence, seconds = gather(case, data, seed)
        run["methods"] |= measure(case, evidence, seconds, missing)
        for name in missing:
            del run["methods"][name]["scores"]
    return bool(missing)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default="cifar10,trec,fashion_mnist")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--development", action="store_true", help="the part settings come from")
    parser.add_argument("--missing", action="store_true", help="go on with what the file has")
    parser.add_argument("--add", help="measure these methods on what the file has, and no more")
    parser.add_argument("--quick", action="store_true", help="digits, one kind, two seeds")
    parser.add_argument("--output", type=Path, default=RESULTS / "mislabelled.json")
    arguments = parser.parse_args()
    names, kinds = arguments.sets.split(","), arguments.kinds.split(",")
    rates, seeds = [float(rate) for rate in arguments.rates.split(",")], arguments.seeds
    if arguments.quick:
        names, kinds, rates, seeds = ["digits"], ["symmetric"], [MAIN_RATE], 2
    settings = {
        "seeds": seeds,
        "quick": arguments.quick,
        "development": arguments.development,
        "epochs": mislabelled_methods.EPOCHS,
        "early_epochs": mislabelled_methods.EARLY_EPOCHS,
        "early_models": mislabelled_methods.EARLY,
        "folds": mislabelled_methods.FOLDS,
        "device": jax.devices()[0].device_kind,
        "sizes": {name: list(each.sizes) for name, each in sets().items()},
        "curve_inspected": CUTS.tolist(),
    }
    identity = lambda row: (row["set"], row["kind"], row["rate"])
    if not (arguments.missing or arguments.add):
        arguments.output.unlink(missing_ok=True)
    for row in read_results(arguments.output) if arguments.add else ():
        this, runs, part = identity(row), runs_of(row), {"development": arguments.development}
        wanted = arguments.add.split(",")
        if row["set"] not in names or row["rate"] not in rates:
            continue
        if add_methods(sets()[this[0]], *this[1:], runs, wanted, **part):
            kept = {identity(old): old for old in read_results(arguments.output)}
            kept[this] = summarise(*this, runs)
            write_result(arguments.output, settings, list(kept.values()))
    if arguments.add:
        return
    # one seed of all before the next
    for rate in sorted(rates, key=lambda rate: rate != MAIN_RATE):
        for seed, name, kind in itertools.product(range(seeds), names, kinds):
            kept = {identity(old): old for old in read_results(arguments.output)}
            this = name, kind, rate
            runs = runs_of(kept[this]) if this in kept else []
            if len(runs) > seed:
                continue
            began = time.perf_counter()
            data = sets()[name]
            runs.append(run_seed(data, kind, rate, seed, development=arguments.development))
            row = kept[this] = summarise(*this, runs)
            # after every seed: a killed run goes on there with --missing
            write_result(arguments.output, settings, list(kept.values()))
            best = sorted(row["methods"].items(), key=lambda m: -m[1]["auc"]["mean"])[:4]
            shown = ", ".join(f"{m} {e['auc']['mean']:.3f}" for m, e in best)
            spent = time.perf_counter() - began
            print(f"{name} | {kind} {rate} | seed {seed}, {spent:.0f} s: {shown}", flush=True)


if __name__ == "__main__":
    main()
