"""How cheaply can memorisation be told? Every estimate against subset retraining.

    python -m benchmarks.memorisation [--sets fashion_mnist,mnist] [--models 1000] [--quick]

Truth: memorisation scores in Feldman and Zhang's sense, P[right | trained on] − P[right | left
out], from S models of random subsets of 70 % of the training set; and the same of the
probability of the label, which has no ties. Every estimate is made with several seeds, on models
of its own, and its rank correlation with the truth is set beside its cost in training runs.

Of each set the development part comes first, on other examples and models: every setting is tried
there, and the report part runs only those that `benchmarks.tables_memorisation.frontier` chose.
A part that is complete in the JSON is not run again.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import rankdata

from benchmarks.common import RESULTS, ROOT, cores, write_result
from benchmarks.memorisation_methods import CHEAP, Found, Wanted, few_models, folds, whole
from benchmarks.memorisation_plot import contact_sheet, curves
from benchmarks.memorisation_sets import (
    QUICK,
    Problem,
    Size,
    forward_flops,
    make_problem,
    train_on,
)
from benchmarks.memorisation_truth import Truth, unit
from benchmarks.tables_memorisation import frontier
from jaxinf.applications.memorisation import (
    RetrainedOutputs,
    influence_scores,
    split_half_reliability,
    tie_ceiling,
)
from jaxinf.evaluation import mean_interval
from jaxinf.influence.ground_truth import draw_subsets

FRACTION = 0.7
# of the examples, for intervals; development only picks
NUM_RESAMPLES = {"report": 200, "development": 10}
# Feldman and Zhang's thresholds of a high-influence pair
MEMORISED, INFLUENTIAL = 0.25, 0.15


def retrained(problem: Problem, store: Path | None) -> tuple[RetrainedOutputs, RetrainedOutputs]:
    """The truth's models and, apart from them, the few ones of each seed of the same estimator."""
    size, offset = problem.size, {"report": 0, "development": 1000}[problem.part]
    extra = size.few * size.seeds
    masks = draw_subsets(size.models + extra, size.train, fraction=FRACTION, seed=offset)
    folder = None if store is None else store / f"{problem.name}_{problem.part}"
    found = train_on(problem, masks, size.epochs, offset + 1, with_test=True, store=folder)
    cut = lambda rows: RetrainedOutputs(
        found.subsets[rows],
        found.correct[rows],
        found.probability[rows],
        None if found.test_correct is None else found.test_correct[rows],
    )
    return cut(slice(None, size.models)), cut(slice(size.models, None))


def estimates(
    problem: Problem, few: RetrainedOutputs, wanted: Wanted
) -> Iterator[tuple[str, Callable[[], Iterator[Found]]]]:
    """Every estimate that is wanted, in groups; the ones that matter most first."""
    size = problem.size
    repeats = {2: 2 if size.is_quick else 8, 4: 9}
    short = sorted({max(1, size.epochs // 10), max(1, size.epochs // 4)})
    counts = tuple(c for c in (1, 2, 4, 8) if c <= size.whole)
    yield "few models", lambda: few_models(problem, few, FRACTION, wanted)
    divided = (2, size.epochs), *((2, e) for e in short), (4, size.epochs)
    for num_folds, epochs in divided[:1] if size.is_quick else divided:
        yield (
            f"{num_folds} folds, {epochs} epochs",
            lambda k=num_folds, e=epochs: folds(problem, k, repeats[k], e, wanted),
        )
    for epochs in short if size.is_quick else (*short, size.epochs):
        yield (
            f"whole set, {epochs} epochs",
            lambda e=epochs: whole(problem, e, counts, CHEAP, wanted),
        )
    for epochs in reversed(short):
        # the dearest: half the models tell enough
        few_counts = counts[: max(1, len(counts) - 1)]
        yield (
            f"whole set, {epochs} epochs, curvature",
            lambda e=epochs, c=few_counts: whole(problem, e, c, ("curvature",), wanted),
        )


def removal(problem: Problem, truth: Truth, cheap: np.ndarray) -> list[dict[str, Any]]:
    """Test accuracy without the most memorised examples, and without as many others."""
    size, rows = problem.size, []
    count, copies = size.train, 2 if size.is_quick else 10
    orders = {
        "retrained": np.lexsort((-truth.scores["p"], -truth.scores["right"])),
        "left out, 2 models": np.argsort(-cheap, kind="stable"),
        "random": np.random.default_rng(7).permutation(count),
    }
    for share in (0.0, 0.1) if size.is_quick else (0.0, 0.05, 0.1, 0.2):
        names = ["none"] if share == 0 else list(orders)
        masks = np.ones((len(names), count), bool)
        for mask, name in zip(masks, names, strict=True):
            if name in orders:
                mask[orders[name][: round(share * count)]] = False
        found = train_on(
            problem, np.repeat(masks, copies, axis=0), size.epochs, 900, with_test=True
        )
        assert found.test_correct is not None
        accuracies = found.test_correct.mean(axis=1).reshape(len(names), copies)
        for name, each in zip(names, accuracies, strict=True):
            interval = asdict(mean_interval(each))
            rows.append({"removed": share, "by": name, "accuracy": interval})
    return rows


def high_influence(found: RetrainedOutputs, truth: Truth) -> dict[str, Any]:
    """Pairs of a memorised training example and a test example that models get right by it."""
    assert found.test_correct is not None
    scores = influence_scores(found.subsets, found.test_correct)
    memorised = truth.scores["right"] >= MEMORISED
    pairs = (scores.scores >= INFLUENTIAL) & memorised
    sure = pairs & (scores.scores > 4 * scores.standard_errors)
    return {
        "memorised": int(memorised.sum()),
        "pairs": int(pairs.sum()),
        "pairs_beyond_4_standard_errors": int(sure.sum()),
        "test_examples": int(sure.any(axis=1).sum()),
        "of_test": int(pairs.shape[0]),
    }


def run_part(
    problem: Problem, wanted: Wanted, deadline: float, arguments: argparse.Namespace, write: Any
) -> None:
    """Truth and every estimate of one part; results are written after each."""
    began = time.perf_counter()
    found, few = retrained(problem, arguments.store)
    truth = Truth(found, seed=0, num_resamples=NUM_RESAMPLES[problem.part])
    document = describe_truth(problem, found, truth, 2 if arguments.quick else 5)
    document["seconds"] = {"truth": time.perf_counter() - began}
    print(
        f"{problem.name} {problem.part}: {problem.size.models} models in "
        f"{document['seconds']['truth']:.0f} s, right on {found.train_accuracy:.4f} of what they "
        f"saw and {found.left_out_accuracy:.4f} of the rest",
        flush=True,
    )
    write(document)
    if problem.part == "report":
        document["influence"] = high_influence(found, truth)
        if arguments.figures is not None:
            pictures(problem, truth, arguments.figures)
    cheap = None
    for name, make in estimates(problem, few, wanted):
        if time.monotonic() > deadline:
            document["left_out"].append(name)
            continue
        for each in make():
            if cheap is None and each.method == "loss when left out":
                cheap = each.scores[0]
            row = {
                "method": each.method,
                "setting": each.setting,
                "models": each.models,
                "training": each.training,
                "scoring": each.scoring,
                **truth.judge(each.scores),
            }
            document["rows"].append(row)
            print(describe(row, time.perf_counter() - began), flush=True)
        write(document)
    if document["left_out"]:
        print(f"no time left for {', '.join(document['left_out'])}", file=sys.stderr, flush=True)
    if problem.part == "report" and cheap is not None and time.monotonic() < deadline:
        document["removal"] = removal(problem, truth, cheap)
    document["seconds"]["all"] = time.perf_counter() - began
    document["complete"] = not document["left_out"] and time.monotonic() < deadline
    write(document)


def describe_truth(
    problem: Problem, found: RetrainedOutputs, truth: Truth, splits: int
) -> dict[str, Any]:
    """What the truth is and how far it can be trusted; no estimate yet."""
    size = problem.size
    document: dict[str, Any] = {
        "size": size._asdict(),
        "fraction": FRACTION,
        "train_accuracy": found.train_accuracy,
        "left_out_accuracy": found.left_out_accuracy,
        "truth_training": FRACTION * size.models,
        "truth_scoring": size.models / (3 * size.epochs),
        "full_run_flops": 3 * forward_flops(problem) * size.train * size.epochs,
        "rows": [],
        "left_out": [],
        "truths_agree": float(
            unit(rankdata(truth.scores["p"])) @ unit(rankdata(truth.scores["right"]))
        ),
    }
    for name, outputs in truth.outputs.items():
        scores = truth.scores[name]
        shares = (0.1, 0.5, 0.9, 0.99)
        document[f"truth_{name}"] = {
            "reliability": asdict(
                split_half_reliability(found.subsets, outputs, num_splits=splits, seed=0)
            ),
            "tie_ceiling": tie_ceiling(scores),
            "quantiles": {
                f"{100 * share:g}": value
                for share, value in zip(shares, np.quantile(scores, shares), strict=True)
            },
            "above_0.25": float((scores > MEMORISED).mean()),
        }
    return document


def pictures(problem: Problem, truth: Truth, folder: Path) -> None:
    """The most memorised examples as one small picture, and the scores beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    contact_sheet(
        folder / f"memorisation_{problem.name}.png",
        problem.train["x"][truth.top[:24]],
        problem.train["y"][truth.top[:24]],
    )
    scores = {name: a.astype(np.float16) for name, a in truth.scores.items()}
    np.savez_compressed(folder / f"memorisation_{problem.name}_scores.npz", **scores)


def describe(row: dict[str, Any], seconds: float) -> str:
    """One line of progress."""
    figures = ", ".join(f"{row[f'spearman_{name}']['estimate']:.3f}" for name in ("right", "p"))
    return (
        f"{seconds:5.0f} s | {row['method']} | {row['setting']} | {row['models']} models, "
        f"{row['training'] + row['scoring']:.3f} runs | Spearman {figures} | top "
        f"{row['precision']['estimate']:.2f}"
    )


def main() -> None:
    """Run what the command line asks for; the JSON is written after every row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="fashion_mnist,mnist")
    parser.add_argument("--part", choices=("report", "development", "both"), default="both")
    parser.add_argument("--models", type=int, default=None, help="of the truth (report)")
    parser.add_argument("--at-once", type=int, default=None, help="models vmapped together")
    parser.add_argument("--store", type=Path, default=None, help="folder: killed runs resume there")
    parser.add_argument("--figures", type=Path, default=None, help="folder for pictures and scores")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin nothing after that long")
    parser.add_argument("--quick", action="store_true", help="digits, few examples and models")
    parser.add_argument("--output", type=Path, default=RESULTS / "memorisation.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "memorisation.svg")
    arguments = parser.parse_args()
    began = time.monotonic()
    size = QUICK if arguments.quick else Size()
    if arguments.models is not None:
        size = size._replace(models=arguments.models)
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_num_cpu_devices", cores())
    settings = {
        "models": size.models,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
    }
    results = (
        json.loads(arguments.output.read_text())["results"] if arguments.output.exists() else {}
    )
    names = ["digits"] if arguments.quick else arguments.sets.split(",")
    parts = ("development", "report") if arguments.part == "both" else (arguments.part,)
    with tempfile.TemporaryDirectory() as cache:
        # parts and sets run the same programs on other numbers: they are compiled once
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update(
            "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", cache)
        )
        for name, part in ((name, part) for name in names for part in parts):
            done = results.setdefault(name, {})
            if done.get(part, {}).get("complete"):
                continue
            is_report = part == "report"
            if not is_report:
                done.pop("report", None)  # its settings are chosen anew
            # fewer models tell settings apart well enough; 280 and the few are two whole chunks
            scale = size if is_report else size._replace(models=max(40, size.models * 28 // 100))
            left = began + arguments.seconds - time.monotonic()
            deadline = time.monotonic() + left * _share(name, part, names, parts)
            wanted = frontier(done["development"]["rows"]) if "development" in done else None
            problem = make_problem(name, part, scale, arguments.at_once, arguments.quick)

            def write(document: dict[str, Any], done: Any = done, part: str = part) -> None:
                done[part] = document
                write_result(arguments.output, settings, results)

            run_part(problem, wanted if is_report else None, deadline, arguments, write)
    if not arguments.quick:
        curves(arguments.figure, results)


def _share(name: str, part: str, names: list[str], parts: tuple[str, ...]) -> float:
    """Of the time that is left; whichever part comes first compiles for both."""
    weights = {"development": 3, "report": 2}
    total = sum(weights[each] for each in parts)
    before = sum(weights[each] for each in parts[: parts.index(part)])
    return weights[part] / (total * (len(names) - names.index(name)) - before)


if __name__ == "__main__":
    main()
