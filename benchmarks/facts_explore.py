"""Which settings find the facts, on the development part; `benchmarks.facts` reports others.

    python -m benchmarks.facts_explore [--seeds 2] [--quick] [--output FILE]

Every method with every divisor, centred over the queries or not, and fused with BM25 in several
ways: what `benchmarks.facts` fixes was read off here.
"""

import argparse
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optax

from benchmarks import facts_methods as methods
from benchmarks.common import RESULTS, ROOT, write_result
from benchmarks.facts_data import draw_facts, load_facts
from benchmarks.facts_model import QUICK, Size, Subject, part_of, train_subject
from jaxinf.applications.language import (
    centre_over_queries,
    rank_of_first,
    reciprocal_rank_fusion,
    sum_of_z_scores,
)
from jaxinf.evaluation import recall_at_k


def figures(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, float]:
    """Mean reciprocal rank of the first proponent, and recall at 10."""
    found = np.mean(1 / rank_of_first(scores, relevant))
    return round(float(found), 4), round(float(recall_at_k(scores, relevant, 10).mean()), 4)


def grid(subject: Subject, seed: int, quick: bool) -> Iterator[tuple[str, str, Any]]:
    """(name, training side, how to score), the most telling first."""
    sides = {"text": subject.train, "object": subject.objects}
    for name, raw in (methods.lexical(subject) | methods.representations(subject)).items():
        yield name, "text", raw
    dim = 64 if quick else 2048
    for side, train in sides.items():
        yield "dot", side, methods.dot(subject, train)
        yield "ekfac 0.1", side, methods.curved(subject, train, 0.1)
    yield "trak 0.1", "text", methods.trak_method(subject, dim, 0.1, seed, False)
    for name, part in parts(subject).items():
        for side, train in sides.items():
            yield f"dot, {name}", f"{side} {name}", methods.dot(part, train)
            if name != "tokens":
                yield f"ekfac 0.1, {name}", f"{side} {name}", methods.curved(part, train, 0.1)
    yield "sgd 0.1", "text", methods.step(subject, subject.train, optax.sgd(0.1), 1)
    yield "adam 1e-4", "text", methods.step(subject, subject.train, optax.adam(1e-4), 1)
    for side, train in sides.items():
        for damping in (0.01, 1.0):
            yield f"ekfac {damping:g}", side, methods.curved(subject, train, damping)
        for floor in (0.1, 1.0):
            yield f"adam scale {floor:g}", side, methods.adam_scaled(subject, train, floor)
        yield "dot, stages", side, methods.dot_stages(subject, train)
        yield "ekfac 0.1, stages", side, methods.curved_stages(subject, train, 0.1)
    yield "sgd 1", "text", methods.step(subject, subject.train, optax.sgd(1.0), 1)
    yield "sgd 0.1 x5", "text", methods.step(subject, subject.train, optax.sgd(0.1), 5)
    yield "adam 1e-3", "text", methods.step(subject, subject.train, optax.adam(1e-3), 1)
    yield "adam 1e-4 x5", "text", methods.step(subject, subject.train, optax.adam(1e-4), 5)
    yield "ekfac 0.1 margin", "text", methods.curved(subject, subject.train, 0.1, "margin")
    yield "trak 0.01", "text", methods.trak_method(subject, dim, 0.01, seed, False)
    yield "trak 1", "text", methods.trak_method(subject, dim, 1.0, seed, False)
    yield "trak 0.1, stages", "text", methods.trak_method(subject, dim, 0.1, seed, True)


def parts(subject: Subject) -> dict[str, Subject]:
    """Subjects whose parameters are only those of some modules."""
    blocks = sorted(name for name in subject.params if name.startswith("block_"))
    return {
        "blocks": part_of(subject, blocks),
        "late": part_of(subject, blocks[len(blocks) // 2 :]),
        "tokens": part_of(subject, ["tokens"]),
    }


def explore(seed: int, size: Size, quick: bool, save: Any, part: Any) -> None:
    """All rows of one seed; `save` is called after each method."""
    start = time.perf_counter()
    facts, patterns = load_facts(ROOT.parent / "shared" / "data")
    drawn = draw_facts(facts, patterns, seed, part, size.facts, size.per_fact)
    subject = train_subject(drawn, size, seed)
    about = {
        "seed": seed, "right": subject.right, "fitted": subject.fitted,
        "several": subject.several, "sentences": len(drawn.sentences),
        "train_s": time.perf_counter() - start,
    }  # fmt: skip
    print(about, flush=True)
    save(about)
    over = {
        f"{side}{suffix}": methods.divisors(one, train)
        for suffix, one in {"": subject, **{f" {n}": p for n, p in parts(subject).items()}}.items()
        for side, train in (("text", subject.train), ("object", subject.objects))
    }
    print(f"{time.strftime('%T')} norms", flush=True)
    lexical = None
    for name, side, raw in grid(subject, seed, quick):
        start = time.perf_counter()
        try:
            scores = methods.score(raw)
        except Exception:  # noqa: BLE001  one method's trouble is not the others'
            traceback.print_exc()
            continue
        seconds = time.perf_counter() - start
        lexical = scores if lexical is None else lexical
        by, best = {"": 1.0}, (0.0, 0.0)
        if raw.kind in ("forward", "gradient"):
            found = over[side]
            by |= {"loss": found.loss + 1e-3, "norm": found.norm, "estimate": found.estimate}
        for divisor, values in by.items():
            divided = scores / values
            for centred in (False, True):
                final = centre_over_queries(divided) if centred else divided
                fused = {
                    f"rrf {c:g} {w:g}": figures(
                        reciprocal_rank_fusion(
                            [lexical, final], weights=[1, w], constant=c), subject.relevant)
                    for c in (10, 60) for w in (0.5, 1)
                } | {
                    f"z {w:g}": figures(
                        sum_of_z_scores([lexical, final], weights=[1, w]), subject.relevant)
                    for w in (0.1, 0.25, 0.5, 1)
                }  # fmt: skip
                row = {
                    "seed": seed, "method": name, "side": side, "by": divisor,
                    "centred": centred, "figures": figures(final, subject.relevant),
                    "fused": fused, "seconds": round(seconds, 2),
                }  # fmt: skip
                save(row)
                best = max(best, row["figures"])
        print(f"{time.strftime('%T')} {name} {side} {seconds:.1f} s {best}", flush=True)


def main() -> None:
    """Explore and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", default="development")
    parser.add_argument("--output", type=Path, default=RESULTS / "facts_explore.json")
    options, rest = parser.parse_known_args()
    size = QUICK if options.quick else Size()
    for assignment in rest:  # --epochs=30 and the like
        name, _, value = assignment.removeprefix("--").partition("=")
        size = size._replace(**{name: type(getattr(size, name))(value)})
    rows: list[Any] = []
    for seed in options.seeds:

        def save(row: Any) -> None:
            rows.append(row)
            if "method" not in row or row["centred"]:
                write_result(options.output, size._asdict(), rows)

        explore(seed, size, options.quick, save, options.part)


if __name__ == "__main__":
    main()
