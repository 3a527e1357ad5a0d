"""Which values find the bad examples? Every method on every corruption of real data, over seeds.

    python -m benchmarks.lava_detection [--sets digits,trec] [--seeds 5] [--models 0] [--quick]
        [--opendataval PYTHON]

A fifth of the training examples (a tenth for triggers) is corrupted and the truth kept (see
`benchmarks.detection_corruptions`); every method sees the same features and the same clean
validation set. Reported: area under the ROC curve of minus the values, the share of bad examples
among the lowest values at the true count, and F1 after cutting the values in two by k-means (the
protocol of opendataval). Methods that train hundreds of models are run for as many seeds as
`--models` says; those that sample subsets also with `--times` as many of them.
"""

import argparse
import functools
import tempfile
import time
import warnings
from collections.abc import Callable, Container
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import RESULTS, Worker, cores, read_results, write_result
from benchmarks.detection_corruptions import spoil
from benchmarks.detection_sets import DATA, benchmarks
from jaxinf import valuation
from jaxinf.evaluation import detection_auc, mean_interval

LAVA: dict[str, dict[str, Any]] = {
    "lava": {},
    "lava, contrast 0": {"contrast": 0.0},
    "lava, balanced 0.05": {"solver": "balanced", "epsilon": 0.05},
    "lava, balanced 0.5": {"solver": "balanced", "epsilon": 0.5},
    "lava, semi-relaxed": {"solver": "semi-relaxed"},
    "lava, one pass": {"solver": "one-pass"},
    "lava, released": {"solver": "reference", "label_cost": "reference"},
    "lava, released, consistent": {"solver": "reference"},
}


PEERS = ("opendataval lava", "opendataval knn-shapley")
# methods that sample subsets, and how many: 200 models; 2 orders of up to N models; 2 (N + 1)
SAMPLED: dict[str, tuple[Callable[..., Any], str, int]] = {
    "data banzhaf": (valuation.data_banzhaf, "num_subsets", 200),
    "data shapley": (valuation.data_shapley, "num_permutations", 2),
    "beta shapley": (valuation.beta_shapley, "num_subsets", 2),
}
TRAIN_MODELS = ("data-oob", "leave-one-out", *SAMPLED)


def _keyed(method: Callable[..., Any], seed: int, **options: Any) -> Callable[..., Any]:
    return functools.partial(method, key=jax.random.key(seed), **options)


def methods(seed: int, times: int = 1) -> dict[str, Callable[..., Any]]:
    """All methods, by name, with what randomness they have drawn from the seed.

    With `times`, those that sample subsets are there with so many times their number as well.
    """
    found: dict[str, Callable[..., Any]] = {
        name: functools.partial(valuation.lava, num_checks=0, **options)
        for name, options in LAVA.items()
    }
    return found | {
        "nearest validation": valuation.nearest_validation,
        "nearest, features only": functools.partial(valuation.nearest_validation, label_weight=0.0),
        "sava": functools.partial(valuation.sava, batch_size=256),
        "mmd": valuation.mmd_values,
        "knn-shapley": valuation.knn_shapley,
        "data-oob": _keyed(valuation.data_oob, seed, num_models=50),
        "leave-one-out": valuation.loo_values,
        "random": lambda x, *_: valuation.Values(jax.random.uniform(jax.random.key(seed), len(x))),
        **{
            name + f", {factor} times" * (factor > 1): _keyed(
                method, seed, **{size: count * factor}
            )
            for factor in sorted({1, times})
            for name, (method, size, count) in SAMPLED.items()
        },
    }


def peers(python: str, stack: ExitStack) -> dict[str, Callable[..., Any]]:
    """Opendataval's evaluators, in a process of an interpreter that has it."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    worker = Worker("benchmarks.opendataval_contender", {"folder": str(folder)}, python=python)
    stack.enter_context(worker)

    def value(name: str, x: Any, y: Any, xv: Any, yv: Any) -> valuation.Values:
        np.savez(folder / "sets.npz", x=np.asarray(x), y=y, xv=np.asarray(xv), yv=yv)
        worker.ask(method=name)
        return valuation.Values(np.load(folder / "values.npy"))

    return {name: functools.partial(value, name) for name in PEERS}


def k_means_f1(values: np.ndarray, is_bad: np.ndarray) -> float:
    """F1 of the lower of two clusters of the values."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import f1_score

    if np.ptp(values) == 0:
        return 0.0
    clusters = KMeans(2, n_init=10, random_state=0).fit(values[:, None])
    lower = int(np.argmin(clusters.cluster_centers_[:, 0]))
    return float(f1_score(is_bad, clusters.labels_ == lower))


def score(values: np.ndarray, is_bad: np.ndarray) -> dict[str, float]:
    """The three figures of merit."""
    count = int(is_bad.sum())
    lowest = np.argsort(values, kind="stable")[:count]
    return {
        "auroc": detection_auc(-values, is_bad),
        "at_true_count": float(is_bad[lowest].mean()),
        "f1": k_means_f1(values, is_bad),
    }


def run(
    name: str,
    corruption: str,
    wanted: Container[str],
    seeds: int,
    models: int,
    others: dict[str, Callable[..., Any]],
    times: int = 1,
) -> list[dict[str, Any]]:
    """All wanted methods on one set under one corruption."""
    benchmark = benchmarks()[name]
    rows = []
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        sets = spoil(benchmark, corruption, seed)
        for method, value in (methods(seed, times) | others).items():
            if method not in wanted or (_trains(method) and seed >= models):
                continue
            began = time.perf_counter()
            values = np.asarray(value(sets.x, sets.y, sets.xv, sets.yv).values)
            seconds = time.perf_counter() - began
            if sets.source is not None:
                values = np.bincount(sets.source, values) / np.bincount(sets.source)
            entry = score(values, sets.is_bad) | {"seconds": seconds}
            found.setdefault(method, []).append(entry)
    for method, entries in found.items():
        row: dict[str, Any] = {"set": name, "corruption": corruption, "method": method}
        for figure in entries[0]:
            series = [entry[figure] for entry in entries]
            row[figure] = {"mean": float(np.mean(series)), "raw": series}
            if len(series) > 1:
                interval = mean_interval(series)
                row[figure]["interval"] = [interval.low, interval.high]
        rows.append(row)
        print(f"{name} | {corruption} | {method}: {row['auroc']['mean']:.3f}", flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = list(benchmarks())
    parser.add_argument("--sets", default=None, help=f"of {', '.join(names)}")
    parser.add_argument("--methods", default=None, help="separated by ';'; default all")
    parser.add_argument("--corruptions", default=None, help="separated by ';'; default all")
    parser.add_argument("--missing", action="store_true", help="leave what the file has")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", type=int, default=0, help="seeds for methods that train models")
    parser.add_argument("--times", type=int, default=1, help="as many subsets, in further rows")
    parser.add_argument("--quick", action="store_true", help="digits, two seeds, no model-based")
    parser.add_argument("--opendataval", default=None, help="interpreter that has opendataval")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava_detection.json")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", valuation.ValuationWarning)
    sets = arguments.sets.split(",") if arguments.sets else names if DATA.is_dir() else ["digits"]
    wanted = (
        arguments.methods.split(";")
        if arguments.methods
        else [*methods(0, arguments.times), *PEERS]
    )
    seeds = arguments.seeds
    if arguments.quick:
        sets, seeds = ["digits"], 2
        if not arguments.methods:
            wanted = [*LAVA, "nearest validation", "knn-shapley", "mmd", "random"]
    only = arguments.corruptions.split(";") if arguments.corruptions else None
    with ExitStack() as stack:
        others = peers(arguments.opendataval, stack) if arguments.opendataval else {}
        for name in sets:
            jax.clear_caches()  # compiled programs of all sets together exhaust a process's maps
            for corruption in benchmarks()[name].corruptions:
                if only and corruption not in only:
                    continue
                # what is measured again replaces what was; the rest of the file stays
                kept = {_name(row): row for row in read_results(arguments.output)}
                trained = arguments.models > 0
                known = methods(0, arguments.times) | others
                able = [m for m in known if trained or not _trains(m)]
                chosen = [m for m in able if m in wanted]
                if arguments.missing:
                    chosen = [m for m in chosen if (name, corruption, m) not in kept]
                if not chosen:
                    continue
                found = run(
                    name, corruption, chosen, seeds, arguments.models, others, arguments.times
                )
                kept = {_name(row): row for row in read_results(arguments.output)}
                kept |= {_name(row): row for row in found}
                write_result(arguments.output, {"cores": cores()}, list(kept.values()))


def _trains(method: str) -> bool:
    return method.startswith(TRAIN_MODELS)


def _name(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["set"], row["corruption"], row["method"]


if __name__ == "__main__":
    main()
