"""The rows of `benchmarks.facts`: every method's scores, one after the other.

Raw products come from a few shared programs (`benchmarks.facts_programs`) and are divided by what
each row says here; the library's own attributors give the same numbers, one method at a time.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks import facts_programs as programs
from benchmarks.facts_model import Subject
from benchmarks.facts_programs import joined, mean, ones
from jaxinf import attribute
from jaxinf.applications.language import sum_of_z_scores, unit_weights
from jaxinf.influence import Attributor

BM25 = "BM25, question and answer"
BEST_OF_ANSWER = "by token, preconditioned: best token"
MEAN_OF_WHOLE = "by token, preconditioned, whole question: mean token"
BOTH = "by token, answer and whole question"

KINDS = {
    BM25: "lexical",
    "BM25, question alone": "lexical",
    "hidden states, mean": "representation",
    "hidden states, mean, whitened": "representation",
    "hidden states, last": "representation",
    "grad-dot": "gradient",
    "grad-cos": "gradient",
    "slope / norm": "forward",
    "preconditioned": "forward",
    "preconditioned, whole question": "forward",
    BEST_OF_ANSWER: "forward",
    "by token, preconditioned: mean token": "forward",
    "by token, preconditioned, whole question: best token": "forward",
    MEAN_OF_WHOLE: "forward",
    BOTH: "forward",
    "grad-cos, object's loss": "gradient",
    "slope / norm, object's loss": "forward",
    "preconditioned, object's loss": "forward",
    "one Adam step / loss": "forward",
    "one SGD step / loss": "forward",
    "TRAK": "gradient",
}

TRIED = (0.01, 0.003, 0.001)
"""Dampings among which the development part of the reduced size chooses, after a first report."""
CHOSEN = 0.001

Rows = Iterator[tuple[str, np.ndarray]]


class Store:
    """Keeps what takes long on disk: a run that was killed does not compute it again.

    Args:
        folder: of one seed of one part; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def keep(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of that name, computed at most once."""
        if self.folder is None:
            return compute()
        path = self.folder / f"{name}.npy"
        if path.exists():
            return np.load(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        values = compute()
        part = path.with_suffix(".part.npy")
        np.save(part, values)
        part.replace(path)
        return values


def scores(subject: Subject, projection: int, store: Store) -> Rows:
    """Every row's name and scores, float64[K, N], as `KINDS` has them; `projection` 0: no TRAK."""
    yield from lexical(subject)
    yield from representations(subject)
    count = len(subject.relevant)
    answers, both = mean(subject.queries), joined(mean(subject.queries), mean(subject.asked))
    texts, objects = mean(subject.train), mean(subject.objects)
    plain = programs.gradients(subject, answers)
    random = along_probes(subject, store)
    estimates = {False: estimated_norms(random, texts), True: estimated_norms(random, objects)}
    turned = programs.curved(subject, both, texts)
    found = programs.slopes(subject, programs.stacked(plain, turned), texts)
    yield "grad-dot", found.products[:count]
    yield "grad-cos", found.products[:count] / found.norms
    # by forward mode it is the same product, to round-off
    yield "slope / norm", found.products[:count] / estimates[False]
    yield "preconditioned", found.products[count : 2 * count] / estimates[False]
    yield "preconditioned, whole question", found.products[2 * count :] / estimates[False]
    yield from by_tokens(subject, token_norms(random), store)
    turned = programs.curved(subject, both, objects)
    of_objects = programs.slopes(subject, programs.stacked(plain, turned), objects)
    products = of_objects.products[:count]
    yield "grad-cos, object's loss", products / of_objects.norms
    yield "slope / norm, object's loss", products / estimates[True]
    products = of_objects.products[count : 2 * count]
    yield "preconditioned, object's loss", products / estimates[True]
    for name in ("Adam", "SGD"):
        changes = programs.finite(subject, name, texts)
        yield f"one {name} step / loss", changes / (found.losses + 1e-3)
    if projection:
        method = programs.trak_method(subject.module, projection)
        yield "TRAK", score(subject, method, subject.train, subject.queries)


def tried(subject: Subject, final: dict[str, np.ndarray], store: Store) -> Rows:
    """Variants that the development part chooses among, beside the rows of the table."""
    best, whole = final[BEST_OF_ANSWER], final[MEAN_OF_WHOLE]
    for weight in (0.5, 2.0):
        yield f"{BOTH}, weight {weight:g}", sum_of_z_scores([best, whole], weights=[1, weight])
    hidden = final["hidden states, mean"]
    for weight in (0.5, 1.0):
        fused = sum_of_z_scores([final[BOTH], hidden], weights=[0.5, weight])
        yield f"{BOTH}, and hidden states {weight:g}", fused
    norms = token_norms(along_probes(subject, store))
    for damping in (1.0, 0.01):
        for name, found in by_tokens(subject, norms, store, damping):
            yield f"{name}, damping {damping:g}", found


def of_whole(subject: Subject, store: Store, dampings: tuple[float, ...]) -> Rows:
    """The mean token of each sentence, by the whole question, at other dampings."""
    train, each = ones(subject.train), len(subject.relevant)

    def products() -> np.ndarray:
        turned = [programs.curved(subject, whole(subject), train, damping) for damping in dampings]
        return programs.shares(subject, programs.stacked(*turned), train)

    norms = token_norms(along_probes(subject, store))
    found = store.keep("whole_" + "_".join(f"{damping:g}" for damping in dampings), products)
    cosines = found / np.where(norms > 0, norms, 1)
    average = cosines.sum(axis=2) / train["mask"].sum(axis=1)
    for number, damping in enumerate(dampings):
        rows = slice(number * each, (number + 1) * each)
        yield f"{MEAN_OF_WHOLE}, damping {damping:g}", average[rows]


def whole(subject: Subject) -> dict[str, np.ndarray]:
    """The questions with their answers, each token's gradient at unit length."""
    weights = unit_weights(subject.module, subject.params, subject.asked)
    return subject.asked | {"weights": weights}


def lexical(subject: Subject) -> Rows:
    """BM25 of the question with its answer, and of the question."""
    train, prompts, whole = subject.words
    for name, asked in ((BM25, whole), ("BM25, question alone", prompts)):
        yield name, score(subject, programs.words_alone(), train, asked, params=())


def representations(subject: Subject) -> Rows:
    """Cosine of hidden states of the last layer, averaged over the text or at its end."""
    for name, method in (
        ("mean", programs.mean_hidden),
        ("mean, whitened", programs.whitened_hidden),
        ("last", programs.last_hidden),
    ):
        found = score(subject, method(subject.module), subject.train, subject.asked)
        yield f"hidden states, {name}", found


def by_tokens(
    subject: Subject, norms: np.ndarray, store: Store, damping: float = programs.DAMPING
) -> Rows:
    """Each sentence's best token and the mean of all, by the answer and by the whole question."""
    train = ones(subject.train)

    def products() -> np.ndarray:
        queries = joined(ones(subject.queries), whole(subject))
        turned = programs.curved(subject, queries, train, damping)
        return programs.shares(subject, turned, train)

    cosines = store.keep(f"tokens_{damping:g}", products) / np.where(norms > 0, norms, 1)
    mask = train["mask"]
    best = np.where(mask, cosines, -np.inf).max(axis=2)
    average = cosines.sum(axis=2) / mask.sum(axis=1)
    count = len(subject.relevant)
    yield BEST_OF_ANSWER, best[:count]
    yield "by token, preconditioned: mean token", average[:count]
    yield "by token, preconditioned, whole question: best token", best[count:]
    yield MEAN_OF_WHOLE, average[count:]
    yield BOTH, sum_of_z_scores([best[:count], average[count:]])


def along_probes(subject: Subject, store: Store) -> np.ndarray:
    """Products of every token's gradient with random directions, float64[R, N, T]."""
    everywhere = ones(subject.train)
    of = lambda: programs.shares(subject, programs.probes(subject), everywhere)
    return store.keep("probes", of)


def token_norms(random: np.ndarray) -> np.ndarray:
    """Norm of every token's gradient, float64[N, T], from its products with random directions."""
    return np.sqrt(np.mean(np.square(random), axis=0))


def estimated_norms(random: np.ndarray, train: dict[str, np.ndarray]) -> np.ndarray:
    """Norm of every example's gradient, float64[N], the same way."""
    products = np.sum(random * train["weights"] * train["mask"], axis=2)
    return np.sqrt(np.mean(np.square(products), axis=0))


def score(
    subject: Subject, method: Attributor, train: object, queries: object, params: object = None
) -> np.ndarray:
    """float64[K, N]."""
    found = attribute(
        method, subject.params if params is None else params, queries, train,
        batch_size=programs.BATCH, progress=False, diagnostics=False,
    )  # fmt: skip
    assert found.scores is not None
    return np.asarray(found.scores, np.float64)
