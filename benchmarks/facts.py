"""Which training sentences taught a language model its facts? Every method beside BM25, over seeds.

    python -m benchmarks.facts [--part both] [--seeds 5] [--development-seeds 3] [--reduced]

A small GPT-2-shaped model with a byte-pair tokenizer of its own is trained on sentences that state
facts of ParaRel, each in some of its relation's patterns. It is asked for them in a pattern that
the fact was not taught in; the sentences that state the fact are the proponents. Questions are
ones that it answers right, about subjects with several facts in training (a subject's name alone
does not give the answer away) before others. Each seed draws facts, patterns, the model's start and
the order of training anew.

Settings were chosen on other facts (`--part development`), none here. Rows with another damping
are a second choice there, made after a first report of the others (`--short`). Seeds that are in
the output already are not run again, so that a run that was stopped goes on, on whatever machine. A
seed takes a minute or two on a GPU and hours on a CPU; `--reduced` is a smaller model of fewer
facts, for a CPU, under the settings of the full size.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import RESULTS, ROOT, write_result
from benchmarks.facts_data import Part, draw_facts, load_facts
from benchmarks.facts_methods import (
    BEST_OF_ANSWER,
    BM25,
    BOTH,
    CHOSEN,
    KINDS,
    MEAN_OF_WHOLE,
    TRIED,
    Store,
    lexical,
    of_whole,
    representations,
    scores,
    tried,
)
from benchmarks.facts_model import QUICK, REDUCED, Size, train_subject
from jaxinf.applications.language import (
    rank_of_first,
    reciprocal_rank_fusion,
    sum_of_z_scores,
)
from jaxinf.evaluation import mean_interval, recall_at_k

# what the development part chose: for the first report, and for the second
FIRST, FORWARD = BOTH, f"{MEAN_OF_WHOLE}, damping {CHOSEN:g}"
FUSION = "ranks 0.25"

FILES = {"report": "facts.json", "development": "facts_development.json"}

SAME = 0.01
"""Figures of a model that was trained again from its seed may differ by so much, by round-off."""
RANDOM = "random order"
"""A control: what any order does to BM25's ties, in whose middle a relevant one counts."""
COMBINED = (
    FORWARD,
    BOTH,
    BEST_OF_ANSWER,
    MEAN_OF_WHOLE,
    "preconditioned, whole question",
    "grad-cos, object's loss",
    "hidden states, mean",
    "hidden states, mean, whitened",
    RANDOM,
)
FUSIONS: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    "ties alone": lambda pair: sum_of_z_scores(pair, weights=[1, 1e-6]),
    "ranks 0.25": lambda pair: reciprocal_rank_fusion(pair, weights=[1, 0.25], constant=1),
    "ranks 0.5": lambda pair: reciprocal_rank_fusion(pair, weights=[1, 0.5], constant=1),
    "z 0.05": lambda pair: sum_of_z_scores(pair, weights=[1, 0.05]),
    "z 0.1": lambda pair: sum_of_z_scores(pair, weights=[1, 0.1]),
    "z 0.25": lambda pair: sum_of_z_scores(pair, weights=[1, 0.25]),
}


def run_seed(
    seed: int,
    size: Size,
    projection: int,
    part: Part = "report",
    store: Store | None = None,
    earlier: dict[str, Any] | None = None,
    is_short: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """About one subject, and per method `(mrr, recall, seconds)`.

    With the figures of an earlier run of this seed only what these lack is computed, of the model
    trained again; a short run has the same rows and no others.

    Raises:
        SystemExit: it is not the model of the earlier run, by more than round-off.
    """
    store, earlier = store or Store(), earlier or {}
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
        "device": jax.devices()[0].device_kind,
    }
    print(time.strftime("%T"), about, flush=True)
    found: dict[str, Any] = {}
    final: dict[str, np.ndarray] = {}

    def take(name: str, values: np.ndarray, seconds: float) -> None:
        final[name] = values
        found[name] = [*figures(values, subject.relevant), round(seconds, 2)]
        print(f"{time.strftime('%T')} {name}: {found[name]}", flush=True)

    is_short |= bool(earlier)
    if is_short:
        rows = itertools.chain(lexical(subject), representations(subject))
    else:
        rows = scores(subject, projection, store)
    start = time.perf_counter()
    dampings = TRIED if part == "development" else (CHOSEN,)
    for name, values in itertools.chain(rows, of_whole(subject, store, dampings)):
        take(name, values, time.perf_counter() - start)
        if name in earlier and not np.allclose(found[name][:2], earlier[name][:2], atol=SAME):
            raise SystemExit(f"seed {seed}: {name} was {earlier[name]}: this is another model")
        start = time.perf_counter()
    final[RANDOM] = np.random.default_rng(seed).normal(size=final[BM25].shape)
    for name in COMBINED:
        for how, fuse in FUSIONS.items():
            if name in final:
                take(f"BM25 + {name}, {how}", fuse([final[BM25], final[name]]), 0.0)
    if part == "development" and not is_short:
        for name, values in tried(subject, final, store):
            take(name, values, 0.0)
    return about, found | earlier


def figures(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Mean reciprocal rank of the first proponent, and recall at 10."""
    reciprocal = float(np.mean(1 / rank_of_first(scores, relevant)))
    return reciprocal, float(recall_at_k(scores, relevant, min(10, scores.shape[1])).mean())


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and its 95 % interval over seeds; of one seed, the figure alone."""
    if len(values) > 1:
        return asdict(mean_interval(values))
    return dict.fromkeys(("estimate", "low", "high"), float(values[0]))


def summary(per_seed: list[dict[str, Any]]) -> dict[str, Any]:
    """Means with intervals, and the differences that the aims are about."""
    fused = {f"BM25 + {name}, {how}" for name in COMBINED for how in FUSIONS}
    named = dict.fromkeys(name for found in per_seed for name in found)
    names = sorted(named, key=lambda name: name in fused)
    kinds = {name: "combined" if name in fused else KINDS.get(name, "forward") for name in names}
    of = lambda name, i: np.array([found[name][i] for found in per_seed if name in found])
    table = [
        {
            "method": name,
            "kind": kind,
            "seeds": len(of(name, 0)),
            "mrr": interval(of(name, 0)),
            "recall": interval(of(name, 1)),
            "seconds": float(np.median(of(name, 2))),
        }
        for name, kind in kinds.items()
    ]
    # a method that few seeds have is not compared with the others
    gradient = [row for row in table if row["kind"] == "gradient"]
    gradient.sort(key=lambda row: (-row["seeds"], -row["mrr"]["estimate"]))
    strongest = [row["method"] for row in gradient[:1]]
    hidden = ("hidden states, mean", "hidden states, mean, whitened")
    others = (*strongest, "grad-cos", "grad-cos, object's loss", *hidden, BM25)
    pairs = [
        pair
        for ours in (FORWARD, FIRST)
        for pair in (
            *((ours, other) for other in others),
            (f"BM25 + {ours}, {FUSION}", BM25),
            (f"BM25 + {ours}, ties alone", BM25),
            (f"BM25 + {ours}, ties alone", f"BM25 + {RANDOM}, ties alone"),
        )
    ]
    differences = [paired(per_seed, a, b) for a, b in dict.fromkeys(pairs)]
    # seeds without the first choice were looked at for the first time after the second
    new = [found for found in per_seed if FIRST not in found]
    if 0 < len(new) < len(per_seed):
        sure = (
            *((FORWARD, other) for other in (*hidden, BM25)),
            (f"BM25 + {FORWARD}, {FUSION}", BM25),
        )
        differences += [
            row and row | {"is_new": True} for row in (paired(new, a, b) for a, b in sure)
        ]
    return {"methods": table, "differences": [row for row in differences if row]}


def paired(per_seed: list[dict[str, Any]], a: str, b: str) -> dict[str, Any] | None:
    """How far method `a` is above `b`, in the seeds that have both; None where none has."""
    both = [found for found in per_seed if a in found and b in found]
    if not both:
        return None
    less = np.array([np.subtract(found[a][:2], found[b][:2]) for found in both])
    row = {"better": a, "than": b, "seeds": len(both)}
    return row | {"mrr": interval(less[:, 0]), "recall": interval(less[:, 1])}


def main() -> None:
    """Run, and write after every seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--development-seeds", type=int, default=3)
    parser.add_argument("--projection", type=int, default=2048, help="of TRAK; 0: without it")
    parser.add_argument("--reduced", action="store_true", help="smaller, for a CPU")
    parser.add_argument(
        "--short", action="store_true", help="words, hidden states and what is chosen among alone"
    )
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--part", choices=["report", "development", "both"], default="report")
    parser.add_argument("--first-seed", type=int, default=0, help="of each part that is run")
    parser.add_argument("--store", type=Path, help="folder: a killed seed goes on from it")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the JSON files go")
    options = parser.parse_args()
    size = QUICK if options.quick else REDUCED if options.reduced else Size()
    suffix = "_reduced" if options.reduced else ""
    seeds = {"report": options.seeds, "development": options.development_seeds}
    parts = [part for part in seeds if options.part in (part, "both")]
    # both parts in turn, so that they share what is compiled
    for seed in range(options.first_seed, max(seeds[part] for part in parts)):
        for part in parts:
            if seed < seeds[part]:
                projection = min(options.projection, 64) if options.quick else options.projection
                output = (options.folder / FILES[part]).with_stem(Path(FILES[part]).stem + suffix)
                folder = options.store and options.store / f"{part}_{seed}"
                _add_seed(output, seed, size, projection, part, Store(folder), options.short)


def _add_seed(
    output: Path, seed: int, size: Size, projection: int, part: Part, store: Store, is_short: bool
) -> None:
    """Run one seed, or the rows that the file lacks of it, and write it with the others."""
    settings = {"size": size._asdict(), "fusion": FUSION}
    subjects, per_seed = _earlier(output, settings)
    place = next((i for i, one in enumerate(subjects) if one["seed"] == seed), len(subjects))
    earlier = per_seed[place] if place < len(per_seed) else None
    if earlier is not None and FORWARD in earlier:
        return
    about, found = run_seed(seed, size, projection, part, store, earlier, is_short)
    # what was measured before stays as it was
    subjects[place:] = [subjects[place] if earlier else about, *subjects[place + 1 :]]
    per_seed[place:] = [found, *per_seed[place + 1 :]]
    results = {"subjects": subjects, "per_seed": per_seed, **summary(per_seed)}
    write_result(output, settings, results)


def _earlier(output: Path, settings: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """Subjects and figures of the seeds that an earlier run of these settings finished."""
    if output.exists():
        document = json.loads(output.read_text())
        if document["settings"] == json.loads(json.dumps(settings)):
            return document["results"]["subjects"], document["results"]["per_seed"]
    return [], []


if __name__ == "__main__":
    main()
