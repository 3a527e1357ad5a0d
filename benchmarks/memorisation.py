"""How cheaply can memorisation be told? Every estimate against subset retraining.

    python -m benchmarks.memorisation [--sets fashion_mnist,mnist] [--models 1000] [--quick]

Truth: memorisation scores in Feldman and Zhang's sense, P[right | trained on] − P[right | left
out], from S models of random subsets of 70 % of the training set; and the same of the
probability of the label, which has no ties. Every estimate is made with several seeds, on models
of its own, and its rank correlation with the truth is set beside its cost in training runs.

`--part development` runs everything on other examples and models: settings are chosen there, and
the table shows what the chosen ones do in the report part.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.stats import rankdata

from benchmarks.common import RESULTS, ROOT, cores, write_result
from benchmarks.memorisation_methods import Found, few_models, folds, whole
from benchmarks.memorisation_plot import contact_sheet, curves
from benchmarks.memorisation_sets import (
    QUICK,
    Problem,
    Size,
    forward_flops,
    make_problem,
    train_on,
)
from jaxinf.applications.memorisation import (
    RetrainedOutputs,
    influence_scores,
    memorisation_scores,
    split_half_reliability,
    tie_ceiling,
)
from jaxinf.evaluation import mean_interval
from jaxinf.influence.ground_truth import draw_subsets

FRACTION = 0.7
NUM_RESAMPLES = 200
TOP = 100
# Feldman and Zhang's thresholds of a high-influence pair
MEMORISED, INFLUENTIAL = 0.25, 0.15


class Truth:
    """What estimates are held against: scores of both kinds, and their ranks in resamples."""

    def __init__(self, found: RetrainedOutputs, seed: int):
        self.outputs = {"right": found.correct, "p": found.probability}
        self.scores = {
            name: memorisation_scores(found.subsets, outputs).scores
            for name, outputs in self.outputs.items()
        }
        if any(np.isnan(scores).any() for scores in self.scores.values()):
            raise SystemExit("an example is in every subset or in none: raise --models")
        # ties at the top are broken by the probability
        order = np.lexsort((-self.scores["p"], -self.scores["right"]))
        self.top = order[: min(TOP, len(order) // 10)]
        count = len(order)
        rng = np.random.default_rng(seed)
        self.resamples = rng.integers(0, count, (NUM_RESAMPLES, count))
        self.ranks = {
            name: [_unit(rankdata(scores[rows])) for rows in self.resamples]
            for name, scores in self.scores.items()
        }

    def judge(self, scores: np.ndarray) -> dict[str, Any]:
        """Agreement of scores [seeds, N]: mean over seeds, intervals over seeds and examples."""
        found: dict[str, Any] = {}
        drawn = [
            _unit(rankdata(scores[:, rows], axis=1)) for rows in self.resamples
        ]  # the slow part, shared by both kinds
        ranks = _unit(rankdata(scores, axis=1))
        for name, of_truth in self.scores.items():
            each = ranks @ _unit(rankdata(of_truth))
            means = [(a @ b).mean() for a, b in zip(drawn, self.ranks[name], strict=True)]
            low, high = np.quantile(means, [0.025, 0.975])
            found[f"spearman_{name}"] = {
                "estimate": float(each.mean()),
                "low": float(low),
                "high": float(high),
                "raw": each.tolist(),
                "over_seeds": asdict(mean_interval(each)),
            }
        hits = [
            np.isin(np.argsort(-row, kind="stable")[: len(self.top)], self.top).mean()
            for row in scores
        ]
        found["precision"] = asdict(mean_interval(hits)) | {"raw": [float(h) for h in hits]}
        return found


def _unit(ranks: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=-1, keepdims=True)


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


def estimates(problem: Problem, few: RetrainedOutputs) -> Iterator[Found]:
    """Every estimate, the ones that matter most first."""
    size = problem.size
    yield from few_models(problem, few, FRACTION)
    short = sorted({max(1, size.epochs // 10), max(1, size.epochs // 4)})
    yield from folds(problem, 2, 2 if size.whole < 4 else 8, size.epochs)
    counts = tuple(c for c in (1, 2, 4, 8) if c <= size.whole)
    for epochs in (*short, size.epochs):
        yield from whole(problem, epochs, counts)
    for epochs in short:
        yield from folds(problem, 2, 2 if size.whole < 4 else 8, epochs)
    yield from folds(problem, 4, 1 if size.whole < 4 else 9, size.epochs)


def removal(problem: Problem, truth: Truth, cheap: np.ndarray) -> list[dict[str, Any]]:
    """Test accuracy without the most memorised examples, and without as many others."""
    size, rows = problem.size, []
    count, copies = size.train, 10 if size.whole > 2 else 2
    orders = {
        "retrained": np.lexsort((-truth.scores["p"], -truth.scores["right"])),
        "left out, 2 models": np.argsort(-cheap, kind="stable"),
        "random": np.random.default_rng(7).permutation(count),
    }
    for share in (0.0, 0.05, 0.1, 0.2):
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


def run_part(problem: Problem, arguments: argparse.Namespace, write: Any) -> None:
    """Truth and every estimate of one part; results are written after each."""
    began = time.perf_counter()
    found, few = retrained(problem, arguments.store)
    truth = Truth(found, seed=0)
    size = problem.size
    document: dict[str, Any] = {
        "size": size._asdict(),
        "fraction": FRACTION,
        "seconds": {"truth": time.perf_counter() - began},
        "train_accuracy": found.train_accuracy,
        "left_out_accuracy": found.left_out_accuracy,
        "truth_training": FRACTION * size.models,
        "truth_scoring": size.models / (3 * size.epochs),
        "full_run_flops": 3 * forward_flops(problem) * size.train * size.epochs,
        "rows": [],
    }
    for name, outputs in truth.outputs.items():
        scores = truth.scores[name]
        splits = 2 if arguments.quick else 5
        document[f"truth_{name}"] = {
            "reliability": asdict(
                split_half_reliability(found.subsets, outputs, num_splits=splits, seed=0)
            ),
            "tie_ceiling": tie_ceiling(scores),
            "quantiles": dict(
                zip(
                    ("10", "50", "90", "99"),
                    np.quantile(scores, [0.1, 0.5, 0.9, 0.99]),
                    strict=True,
                )
            ),
            "above_0.25": float((scores > MEMORISED).mean()),
        }
    document["truths_agree"] = float(
        _unit(rankdata(truth.scores["p"])) @ _unit(rankdata(truth.scores["right"]))
    )
    print(
        f"{problem.name} {problem.part}: {size.models} models in "
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
    for each in estimates(problem, few):
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
    if problem.part == "report":
        assert cheap is not None
        document["removal"] = removal(problem, truth, cheap)
    document["seconds"]["all"] = time.perf_counter() - began
    write(document)


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
    parser.add_argument("--quick", action="store_true", help="digits, few examples and models")
    parser.add_argument("--output", type=Path, default=RESULTS / "memorisation.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "memorisation.svg")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else Size()
    if arguments.models is not None:
        size = size._replace(models=arguments.models)
    jax.config.update("jax_num_cpu_devices", cores())
    # parts and sets run the same programs on other numbers: they are compiled once
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    settings = {
        "models": size.models,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
    }
    results = (
        json.loads(arguments.output.read_text())["results"] if arguments.output.exists() else {}
    )
    names = ["digits"] if arguments.quick else arguments.sets.split(",")
    parts = ("report", "development") if arguments.part == "both" else (arguments.part,)
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        for part in parts:
            # fewer models tell settings apart well enough
            scale = (
                size if part == "report" else size._replace(models=max(40, size.models * 3 // 10))
            )
            for name in names:
                problem = make_problem(name, part, scale, arguments.at_once, arguments.quick)

                def write(document: dict[str, Any], name: str = name, part: str = part) -> None:
                    results.setdefault(name, {})[part] = document
                    write_result(arguments.output, settings, results)

                run_part(problem, arguments, write)
    if not arguments.quick:
        curves(arguments.figure, results)


if __name__ == "__main__":
    main()
