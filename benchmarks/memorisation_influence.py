"""Which memorised training example makes a model right about a test example?

    python -m benchmarks.memorisation_influence [--sets fashion_mnist,mnist] [--models 400]

Truth: influence scores in Feldman and Zhang's sense, P[right on a test example | trained on] −
P[right | left out], from S models of random subsets of 70 % of the training set. A pair counts
where the influence is 0.15 or more and beyond four standard errors, and the training example's own
score is 0.25 or more. For every test example that has such a pair, each method ranks all training
examples, and the pair's should come first.

Nothing was chosen here: every method and setting that ran is in the file, those of the early
ensemble as `benchmarks.lds` has them.
"""

import argparse
import functools
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import RESULTS, cores, write_result
from benchmarks.memorisation import FRACTION, INFLUENTIAL, MEMORISED
from benchmarks.memorisation_sets import QUICK, Problem, Size, make_problem, train_on, train_whole
from jaxinf import attribute, influence
from jaxinf.applications.language import rank_of_first
from jaxinf.applications.memorisation import RetrainedOutputs, influence_scores, memorisation_scores
from jaxinf.evaluation import bootstrap_interval, recall_at_k, roc_auc
from jaxinf.influence import Attributor
from jaxinf.influence.ground_truth import draw_subsets

CERTAIN = 4
"""Standard errors that an influence must be beyond."""
EARLY, FULL = 0.2, 1.0
"""Of a full run's epochs: models of the early ensemble, as the LDS has them, and whole runs."""


class Pairs(NamedTuple):
    """The truth.

    Attributes:
        scores: float[M, N], influence of each training example on each test example.
        relevant: bool[K, N], the pairs that count, of test examples that have one.
        tests: int[K], those test examples.
        memorised: how many training examples are.
        reliability: float[K], correlation of the influence on each from two halves of the models.
    """

    scores: np.ndarray
    relevant: np.ndarray
    tests: np.ndarray
    memorised: int
    reliability: np.ndarray


def find_pairs(found: RetrainedOutputs, certain: float = CERTAIN) -> Pairs:
    """Influence of every training example on every test example, and the pairs that count.

    Args:
        found: what the models of the subsets answered.
        certain: standard errors that an influence must be beyond.

    Raises:
        SystemExit: where no pair is certain.
    """
    assert found.test_correct is not None
    whole = influence_scores(found.subsets, found.test_correct)
    memorised = memorisation_scores(found.subsets, found.correct).scores >= MEMORISED
    relevant = (whole.scores >= INFLUENTIAL) & memorised
    relevant &= whole.scores > certain * whole.standard_errors
    tests = np.flatnonzero(relevant.any(axis=1))
    if not len(tests):
        raise SystemExit(f"no pair is beyond {certain:g} standard errors: raise --models")
    halves = [
        influence_scores(found.subsets[rows], found.test_correct[rows][:, tests]).scores
        for rows in (slice(0, None, 2), slice(1, None, 2))
    ]
    return Pairs(whole.scores, relevant[tests], tests, int(memorised.sum()), correlations(*halves))


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's, of each row of [K, N] with the other's; 0 where a row is constant."""
    a, b = (side - side.mean(axis=1, keepdims=True) for side in (a, b))
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.where(size > 0, (a * b).sum(axis=1) / np.where(size > 0, size, 1), 0.0)


def of_models(found: RetrainedOutputs, rows: slice) -> RetrainedOutputs:
    """What so many of the models answered."""
    return RetrainedOutputs(
        **{name: a if a is None else a[rows] for name, a in vars(found).items()}
    )


def judge(scores: np.ndarray, pairs: Pairs) -> dict[str, Any]:
    """Figures per test example, as means with intervals over test examples."""
    each = {
        "recall_at_1": recall_at_k(scores, pairs.relevant, 1),
        "recall_at_10": recall_at_k(scores, pairs.relevant, 10),
        "mrr": 1 / rank_of_first(scores, pairs.relevant),
        "auc": np.array(
            [roc_auc(row, right) for row, right in zip(scores, pairs.relevant, strict=True)]
        ),
        "pearson": correlations(scores, pairs.scores[pairs.tests]),
    }
    # over all pairs at once: of so many as count, how many do
    top = np.argsort(-scores, axis=None, kind="stable")[: pairs.relevant.sum()]
    found = {name: interval(a) for name, a in each.items()}
    return found | {"precision": float(pairs.relevant.ravel()[top].mean())}


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean over test examples with its 95 % interval; of one, the figure alone."""
    if len(values) > 1:
        return asdict(bootstrap_interval(values, seed=0))
    return {"estimate": float(values[0])}


class Contender(NamedTuple):
    """A method, the models it looks at, and what these cost.

    Attributes:
        name: of the method.
        kind: what of a training example it looks at: pixels, hidden units, passes or gradients.
        make: `(number of models) -> attributor`; of one model where it is not `stacked`.
        share: epochs, in full runs, of each model.
        counts: numbers of models; scores of several are averaged.
        stacked: takes all models at once.
    """

    name: str
    kind: str
    make: Any
    share: float = FULL
    counts: tuple[int, ...] = (1,)
    stacked: bool = False


def contenders(problem: Problem) -> Iterator[Contender]:
    """All of them; trivial ones first."""
    loss, pixels = problem.loss_fn, lambda params, batch: batch["x"]
    hidden: Any = lambda params, batch: problem.module.apply(
        {"params": params}, batch["x"], method="features"
    )
    single = lambda make: lambda count: make

    def of_class(features: Any) -> Any:
        # the label so heavy that its own class comes first
        heavy = lambda batch: 100 * jax.nn.one_hot(batch["y"], problem.module.num_classes)
        flat = lambda a: a.reshape(len(a), -1)
        return lambda params, batch: jnp.concatenate(
            [flat(features(params, batch)), heavy(batch)], axis=1
        )

    def one(name: str, kind: str, method: Attributor, **options: Any) -> Contender:
        return Contender(name, kind, single(method), **options)

    nearest: Any = functools.partial(influence.representation_similarity, metric="euclidean")
    yield one("pixels, nearest", "pixels", nearest(pixels), share=0.0)
    yield one("pixels, nearest of the class", "pixels", nearest(of_class(pixels)), share=0.0)
    yield one("hidden units, nearest", "hidden units", nearest(hidden))
    yield one("hidden units, nearest of the class", "hidden units", nearest(of_class(hidden)))
    yield one("hidden units, cosine", "hidden units", influence.representation_similarity(hidden))
    several = (1, 2, 4) if not problem.size.is_quick else (1, 2)
    for share in (EARLY, FULL):
        options: dict[str, Any] = {"share": share, "counts": several}
        yield one("Forward-INF, JVP", "passes", influence.forward_inf_jvp(loss), **options)
        yield one("Forward-INF, one step", "passes", influence.forward_inf(loss), **options)
        yield one("grad-cos", "gradients", influence.grad_cos(loss), **options)
        influences = influence.influence_function(
            loss, solver="woodbury", damping=1.0, damping_unit="mean_eigenvalue",
            curvature="fisher", measure="margin", query_chunk=25,
        )  # fmt: skip
        yield one("influence function, λ = 1", "passes", influences, **options)
    # the same numbers twice: by forward passes, and by gradients of the training examples, which
    # are the cheaper of the two where a network is small and queries are many
    for kind, scorer in (("passes", "jvp"), ("gradients", "gradients")):
        yield Contender(
            f"early ensemble, power 0.7, by {kind}",
            kind,
            lambda count, scorer=scorer: influence.early_ensemble(
                loss, num_models=count, doubt_power=0.7, scorer=scorer
            ),
            share=EARLY,
            counts=tuple(c for c in (1, 2, 5) if c <= problem.size.whole),
            stacked=True,
        )
    yield Contender(
        "TRAK",
        "gradients",
        lambda count: influence.trak(
            loss,
            projection_dim=min(512, problem.size.train // 2),
            key=jax.random.key(4),
            num_checkpoints=count,
        ),
        counts=tuple(c for c in (1, 5) if c <= problem.size.whole),
        stacked=True,
    )


def estimated(
    problem: Problem, contender: Contender, models: Any, queries: Any
) -> Iterator[tuple[int, np.ndarray, float]]:
    """`(models, scores [K, N], seconds)` at each of the contender's counts."""
    run = lambda method, params: np.asarray(
        attribute(method, params, queries, problem.train, batch_size=500, progress=False).scores
    )
    if contender.stacked:
        for count in contender.counts:
            began = time.perf_counter()
            scores = run(contender.make(count), jax.tree.map(lambda a, c=count: a[:c], models))
            yield count, scores, time.perf_counter() - began
        return
    total, seconds = 0.0, 0.0
    for number in range(max(contender.counts)):
        began = time.perf_counter()
        total = total + run(contender.make(1), jax.tree.map(lambda a, m=number: a[m], models))
        seconds += time.perf_counter() - began
        if number + 1 in contender.counts:
            yield number + 1, np.asarray(total) / (number + 1), seconds


def run_set(problem: Problem, truth_models: int, store: Path | None, write: Any) -> None:
    """Truth, then every method; results are written after each."""
    size, began = problem.size, time.perf_counter()
    folder = store and store / f"{problem.name}_influence_{truth_models}"
    masks = draw_subsets(truth_models + size.few, size.train, fraction=FRACTION, seed=5)
    found = train_on(problem, masks, size.epochs, 6, with_test=True, store=folder)
    # of a run that was killed and went on, only the rest
    per_model = (time.perf_counter() - began) / len(masks)
    truth = of_models(found, slice(None, truth_models))
    few = of_models(found, slice(truth_models, None))
    # few models are sure of nothing
    pairs = find_pairs(truth, 1 if size.is_quick else CERTAIN)
    document: dict[str, Any] = {
        "size": size._asdict(),
        "truth_models": truth_models,
        "truth_training": FRACTION * truth_models,
        "truth_seconds": per_model * truth_models,
        "memorised": pairs.memorised,
        "pairs": int(pairs.relevant.sum()),
        "tests": len(pairs.tests),
        "reliability": interval(pairs.reliability),
        "rows": [],
    }
    print(problem.name, {k: v for k, v in document.items() if k not in ("rows", "size")})

    def add(
        name: str, kind: str, count: int, training: float, trained_s: float, scores: np.ndarray,
        scored_s: float,
    ):  # fmt: skip
        row = {"method": name, "kind": kind, "models": count, "training": training}
        row |= {"training_seconds": trained_s, "scoring_seconds": scored_s}
        document["rows"].append(row | judge(scores, pairs))
        shown = ", ".join(f"{k} {document['rows'][-1][k]['estimate']:.3f}" for k in ("mrr", "auc"))
        print(f"{name}, {count} models, {training:g} runs, {scored_s:.1f} s: {shown}", flush=True)
        write(document)

    for count in (c for c in (10, 20, 40) if c <= size.few):
        assert few.test_correct is not None
        of_few = influence_scores(few.subsets[:count], few.test_correct[:count][:, pairs.tests])
        values = np.nan_to_num(of_few.scores)
        add(
            "same estimator, few models",
            "retraining",
            count,
            FRACTION * count,
            per_model * count,
            values,
            0.0,
        )
    queries = jax.tree.map(lambda a: jnp.asarray(a[pairs.tests]), problem.test)
    banks: dict[int, tuple[Any, float]] = {}
    for contender in contenders(problem):
        epochs = max(1, round(contender.share * size.epochs)) if contender.share else 1
        if epochs not in banks:
            began = time.perf_counter()
            bank = jax.block_until_ready(train_whole(problem, size.whole, epochs, 80))
            banks[epochs] = bank, (time.perf_counter() - began) / size.whole
        # what only looks at pixels needs no training
        bank, each = banks[epochs]
        for count, scores, seconds in estimated(problem, contender, bank, queries):
            trained = count if contender.share else 0
            runs, trained_s = trained * epochs / size.epochs, trained * each
            add(contender.name, contender.kind, count, runs, trained_s, scores, seconds)


def main() -> None:
    """Run what the command line asks for; the JSON is written after every row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="fashion_mnist,mnist")
    parser.add_argument("--models", type=int, default=400, help="of the truth")
    parser.add_argument("--at-once", type=int, default=None, help="models vmapped together")
    parser.add_argument("--store", type=Path, default=None, help="folder: killed runs resume there")
    parser.add_argument("--quick", action="store_true", help="digits, few examples and models")
    parser.add_argument("--output", type=Path, default=RESULTS / "memorisation_influence.json")
    arguments = parser.parse_args()
    if jax.config.jax_platforms == "cpu":
        jax.config.update("jax_num_cpu_devices", cores())
    size = QUICK if arguments.quick else Size()
    models = min(arguments.models, 60) if arguments.quick else arguments.models
    settings = {"quick": arguments.quick, "device": jax.devices()[0].device_kind}
    results: dict[str, Any] = {}
    for name in ["digits"] if arguments.quick else arguments.sets.split(","):
        problem = make_problem(name, "report", size, arguments.at_once, arguments.quick)

        def write(document: dict[str, Any], name: str = name) -> None:
            results[name] = document
            write_result(arguments.output, settings, results)

        run_set(problem, models, arguments.store, write)


if __name__ == "__main__":
    main()
