"""Which training sentences taught a language model its facts? Every method beside BM25, over seeds.

    python -m benchmarks.facts [--seeds 5] [--part development] [--quick]

A small GPT-2-shaped model with a byte-pair tokenizer of its own is trained on sentences that state
facts of ParaRel, each in some of its relation's patterns. It is asked for them in a pattern that
the fact was not taught in; the sentences that state the fact are the proponents. Questions are
ones that it answers right, about subjects with several facts in training (a subject's name alone
does not give the answer away) before others. Each seed draws facts, patterns, the model's start and
the order of training anew.

Settings were chosen on other facts (`--part development`), none here.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks import facts_methods as methods
from benchmarks.common import RESULTS, ROOT, write_result
from benchmarks.facts_data import Part, draw_facts, load_facts
from benchmarks.facts_model import QUICK, Size, Subject, part_of, train_subject
from jaxinf.applications.language import (
    centre_over_queries,
    rank_of_first,
    reciprocal_rank_fusion,
    sum_of_z_scores,
)
from jaxinf.evaluation import mean_interval, recall_at_k


class Row(NamedTuple):
    """A method as the table has it.

    Attributes:
        kind: `"lexical"`, `"representation"`, `"gradient"`, `"forward"` or `"combined"`.
        make: the raw method of a subject; None for a combination.
        divide: what its scores are divided by: `""`, `"loss"`, `"norm"` (which takes gradients)
            or `"estimate"` (forward passes).
        objects: whether the object's tokens alone count on the training side.
        centred: whether scores are centred over the queries.
    """

    kind: str
    make: Callable[[Subject, Any, int], methods.Raw]
    divide: str = ""
    objects: bool = False
    centred: bool = False


BM25 = "BM25, question and answer"
# what the development part chose
FORWARD = "by token, answer and whole question"
FUSION = "ranks 0.25"


def rows(quick: bool) -> dict[str, Row]:
    """The table, in order."""
    dim = 64 if quick else 2048
    lexical = lambda name: lambda s, train, seed: methods.lexical(s)[name]
    hidden = lambda name: lambda s, train, seed: methods.representations(s)[name]
    dot = lambda s, train, seed: methods.dot(s, train)
    tokens = lambda s, train, seed: methods.dot(part_of(s, ["tokens"]), train)
    ekfac = lambda s, train, seed: methods.curved(s, train, 0.1)
    whole = lambda s, train, seed: methods.curved(s, train, 1.0, queries=s.asked)
    step = lambda optimizer, steps: lambda s, train, seed: methods.step(s, train, optimizer, steps)
    return {
        BM25: Row("lexical", lexical(BM25)),
        "BM25, question alone": Row("lexical", lexical("BM25, question alone")),
        "hidden states, mean": Row("representation", hidden("hidden states, mean")),
        "hidden states, last": Row("representation", hidden("hidden states, last")),
        "grad-dot": Row("gradient", dot),
        "grad-cos": Row("gradient", dot, "norm"),
        "grad-cos, object's loss": Row("gradient", dot, "norm", objects=True),
        "TRAK": Row("gradient", lambda s, _, seed: methods.trak_method(s, dim, 0.1, seed, False)),
        "one SGD step / loss": Row("forward", step(optax.sgd(0.1), 1), "loss"),
        "five SGD steps / loss": Row("forward", step(optax.sgd(0.1), 5), "loss"),
        "one Adam step / loss": Row("forward", step(optax.adam(1e-4), 1), "loss"),
        "slope / norm": Row("forward", dot, "estimate"),
        "slope / norm, object's loss": Row("forward", dot, "estimate", True),
        "preconditioned": Row("forward", ekfac, "estimate"),
        "preconditioned, object's loss": Row("forward", ekfac, "estimate", True),
        "preconditioned, object's loss, centred": Row("forward", ekfac, "", True, True),
        "embedding's slope / norm, object's loss": Row("forward", tokens, "estimate", True),
        "preconditioned, whole question": Row("forward", whole, "estimate"),
    }


# by token: (what it is called, whether the whole question is asked, damping)
BY_TOKEN = (
    ("by token, slope", False, None),
    ("by token, preconditioned", False, 0.1),
    ("by token, preconditioned, whole question", True, 0.1),
)
PARTS = ("best token", "best three", "mean token")
BOTH = "by token, answer and whole question"
OF_BOTH = (
    "by token, preconditioned: best token",
    "by token, preconditioned, whole question: mean token",
)
COMBINED = (
    BOTH,
    "by token, preconditioned: best token",
    "by token, preconditioned, whole question: mean token",
    "preconditioned, whole question",
    "grad-cos, object's loss",
    "hidden states, mean",
)
FUSIONS: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    "ranks 0.25": lambda pair: reciprocal_rank_fusion(pair, weights=[1, 0.25], constant=1),
    "ranks 0.5": lambda pair: reciprocal_rank_fusion(pair, weights=[1, 0.5], constant=1),
    "z 0.05": lambda pair: sum_of_z_scores(pair, weights=[1, 0.05]),
    "z 0.1": lambda pair: sum_of_z_scores(pair, weights=[1, 0.1]),
    "z 0.25": lambda pair: sum_of_z_scores(pair, weights=[1, 0.25]),
}


def run_seed(
    seed: int, size: Size, quick: bool, part: Part = "report"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """About one subject, and per method `(mrr, recall, seconds)`."""
    start = time.perf_counter()
    facts, patterns = load_facts(ROOT.parent / "shared" / "data")
    drawn = draw_facts(facts, patterns, seed, part, size.facts, size.per_fact)
    subject = train_subject(drawn, size, seed)
    about = {
        "seed": seed,
        "right": subject.right,
        "fitted": subject.fitted,
        "several": subject.several,
        "sentences": len(subject.train["tokens"]),
        "queries": len(subject.relevant),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(subject.params)),
        "train_s": round(time.perf_counter() - start, 1),
    }
    print(about, flush=True)
    sides = {False: subject.train, True: subject.objects}
    over = {objects: methods.divisors(subject, train) for objects, train in sides.items()}
    embedding = methods.divisors(part_of(subject, ["tokens"]), subject.objects)
    raw: dict[Any, Any] = {}
    found: dict[str, Any] = {}
    final: dict[str, np.ndarray] = {}
    for name, row in rows(quick).items():
        start = time.perf_counter()
        key = (row.make, row.objects)
        if key not in raw:
            raw[key] = methods.score(row.make(subject, sides[row.objects], seed))
        scores = raw[key]
        if row.divide:
            of = embedding if name.startswith("embedding") else over[row.objects]
            divisor = getattr(of, row.divide)
            scores = scores / (divisor + (1e-3 if row.divide == "loss" else 0.0))
        final[name] = centre_over_queries(scores) if row.centred else scores
        seconds = time.perf_counter() - start
        found[name] = [*figures(final[name], subject.relevant), round(seconds, 2)]
        print(f"{time.strftime('%T')} {name}: {found[name]}", flush=True)
    for label, whole, damping in BY_TOKEN:
        start = time.perf_counter()
        asked = subject.asked if whole else subject.queries
        for part, scores in methods.token_cosines(subject, asked, damping, whole).items():
            final[f"{label}: {part}"] = scores
            seconds = round(time.perf_counter() - start, 2)
            found[f"{label}: {part}"] = [*figures(scores, subject.relevant), seconds]
            print(f"{time.strftime('%T')} {label}: {part}: {found[f'{label}: {part}']}", flush=True)
    final[BOTH] = sum_of_z_scores([final[name] for name in OF_BOTH])
    found[BOTH] = [*figures(final[BOTH], subject.relevant), 0.0]
    for name in COMBINED:
        for how, fuse in FUSIONS.items():
            fused = fuse([final[BM25], final[name]])
            found[f"BM25 + {name}, {how}"] = [*figures(fused, subject.relevant), 0.0]
    return about, found


def figures(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Mean reciprocal rank of the first proponent, and recall at 10."""
    reciprocal = float(np.mean(1 / rank_of_first(scores, relevant)))
    return reciprocal, float(recall_at_k(scores, relevant, min(10, scores.shape[1])).mean())


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and its 95 % interval over seeds; of one seed, the figure alone."""
    if len(values) > 1:
        return asdict(mean_interval(values))
    return dict.fromkeys(("estimate", "low", "high"), float(values[0]))


def summary(per_seed: list[dict[str, Any]], quick: bool) -> dict[str, Any]:
    """Means with intervals, and the differences that the aims are about."""
    kinds = {name: row.kind for name, row in rows(quick).items()}
    kinds |= {f"{label}: {part}": "forward" for label, *_ in BY_TOKEN for part in PARTS}
    kinds[BOTH] = "forward"
    kinds |= {f"BM25 + {name}, {how}": "combined" for name in COMBINED for how in FUSIONS}
    of = lambda name, i: np.array([found[name][i] for found in per_seed])
    table = [
        {
            "method": name,
            "kind": kind,
            "mrr": interval(of(name, 0)),
            "recall": interval(of(name, 1)),
            "seconds": float(np.median(of(name, 2))),
        }
        for name, kind in kinds.items()
    ]
    gradient = [row for row in table if row["kind"] == "gradient"]
    strongest = max(gradient, key=lambda row: row["mrr"]["estimate"])["method"]
    pairs = [
        (FORWARD, strongest),
        (FORWARD, "grad-cos"),
        (FORWARD, "hidden states, mean"),
        (FORWARD, BM25),
        (f"BM25 + {FORWARD}, {FUSION}", BM25),
    ]
    differences = [
        {
            "better": a,
            "than": b,
            "mrr": interval(of(a, 0) - of(b, 0)),
            "recall": interval(of(a, 1) - of(b, 1)),
        }
        for a, b in dict.fromkeys(pairs)
    ]
    return {"methods": table, "differences": differences}


def main() -> None:
    """Run, and write after every seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--part", choices=["report", "development"], default="report")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/facts*.json")
    options = parser.parse_args()
    name = "facts" if options.part == "report" else "facts_development"
    output = options.output or RESULTS / f"{name}.json"
    size = QUICK if options.quick else Size()
    subjects: list[Any] = []
    per_seed: list[Any] = []
    settings = {
        "size": size._asdict(),
        "fusion": FUSION,
        "forward": FORWARD,
        "devices": [device.device_kind for device in jax.devices()],
    }
    for seed in range(options.seeds):
        about, found = run_seed(seed, size, options.quick, options.part)
        subjects.append(about)
        per_seed.append(found)
        results = {"subjects": subjects, "per_seed": per_seed, **summary(per_seed, options.quick)}
        write_result(output, settings, results)


if __name__ == "__main__":
    main()
