"""The contenders of `benchmarks.leakage_kinds`: scores of a subject's queries, method by method.

Slopes along gradients are taken once and serve every first-order method: what forward passes and
what backward passes compute is the same number. `family` says what a method costs the training
side: nothing of the model or one forward pass ("trivial"), forward passes alone ("forward"), or
gradients of training examples ("gradients").
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.leakage_subjects import Subject
from jaxinf.applications.leakage import relative_to_reference, score_queries
from jaxinf.datasets.transforms import all_shifts
from jaxinf.influence import (
    Attributor,
    Planner,
    forward_inf,
    grad_dot,
    perceptual_hashes,
    released_forward_inf,
    representation_similarity,
    signature_match,
)
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.scorers import estimated_gradient_norms
from jaxinf.models import predict

RATES = (0.01, 0.1, 1.0)
RIDGE = 0.1
FEW_REFERENCES = 32
NUM_PROBES = 64
RELEASED = "released recipe"
LAST_CHEAP = "grad_cos, whitened by references"
COSTLY = (*(f"finite step, lr {rate:g}" for rate in RATES), RELEASED)
"""Methods that pass over the training set once per query."""


class Scores(NamedTuple):
    """What one method says.

    Attributes:
        method: its name.
        family: see the module.
        rows: which queries were scored.
        scores: float[rows, N].
    """

    method: str
    family: str
    rows: np.ndarray
    scores: np.ndarray


Make = Callable[[], Iterator[Scores]]


class Settings(NamedTuple):
    """How it is computed; the numbers do not depend on it, but for rounding.

    Attributes:
        batch_size: training examples per step.
        query_chunk: queries whose directions are held at once.
        scorer: of slopes.
        seed: of the released recipe and the random probes.
        num_probes: random directions that estimate gradient norms; 0 leaves that method out.
    """

    batch_size: int
    query_chunk: int
    scorer: Any
    seed: int
    num_probes: int = NUM_PROBES


def cheap_steps(subject: Subject, settings: Settings) -> Iterator[tuple[str, Make]]:
    """Methods, in groups that share work, whose cost hardly grows with the queries."""
    everyone = np.arange(len(subject.source))
    yield "pixels, features, hashes", lambda: _trivial(subject, settings, everyone)
    yield "first order", lambda: _first_order(subject, settings, everyone)


def costly_steps(
    subject: Subject, settings: Settings, stepped: np.ndarray
) -> Iterator[tuple[str, Make]]:
    """The methods of `COSTLY`, for the queries `stepped`."""
    for name, rate in zip(COSTLY, RATES, strict=False):  # the last one takes no rate
        yield name, lambda rate=rate: _finite(subject, settings, stepped, rate)
    yield RELEASED, lambda: _released(subject, settings, stepped)


def _score(
    attributor: Attributor, params: Any, queries: Any, train: Any, settings: Settings
) -> np.ndarray:
    chunks = score_queries(
        attributor,
        params,
        queries,
        train,
        query_chunk=settings.query_chunk,
        batch_size=settings.batch_size,
        progress=False,
    )
    return np.concatenate(list(chunks))


def _trivial(subject: Subject, settings: Settings, rows: np.ndarray) -> Iterator[Scores]:
    variables = {"params": subject.params, **subject.state}
    of = lambda x: predict(subject.module, variables, x, 500, method="features")
    features, asked = of(subject.train["x"]), of(subject.queries["x"])
    near = representation_similarity(lambda _, x: x, metric="euclidean")
    alike = representation_similarity(lambda _, x: x)
    # squared distances cancel: copies need every bit
    with jax.default_matmul_precision("highest"):
        score = lambda method, queries, train: _score(method, (), queries, train, settings)
        pixels = score(near, subject.query_stored, subject.train_stored)
        yield Scores("pixels", "trivial", rows, pixels)
        for moved in all_shifts(subject.query_stored):
            pixels = np.maximum(pixels, score(near, moved, subject.train_stored))
        yield Scores("pixels, best of 9 shifts", "trivial", rows, pixels)
        yield Scores("features", "trivial", rows, score(near, asked, features))
        cosine = score(alike, asked, features)
        yield Scores("features, cosine", "trivial", rows, cosine)
    hashes = lambda x: perceptual_hashes(np.rint(255 * x).astype(np.uint8))
    found = _score(
        signature_match(), (), hashes(subject.query_stored), hashes(subject.train_stored), settings
    )
    yield Scores("perceptual hash", "trivial", rows, found)


class Slopes(NamedTuple):
    """All that first-order methods are made of.

    Attributes:
        dots: [K, N], of the gradients of queries and training examples.
        products: [K, R], of queries and references.
        of_train: [N], gradient norms.
        of_queries: [K].
    """

    dots: np.ndarray
    products: np.ndarray
    of_train: np.ndarray
    of_queries: np.ndarray


def first_order(subject: Subject, settings: Settings) -> Slopes:
    """Inner products of gradients and their norms, taken once."""
    method = grad_dot(subject.loss_fn, scorer=settings.scorer)
    prepare = jax.jit(method.prepare)

    @jax.jit
    def both(state: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        # in one program: the training examples' gradients are taken once for all of it
        assert method.self_score is not None
        return method.score(state, batch), jnp.sqrt(method.self_score(state, batch))

    def against(data: Any) -> tuple[np.ndarray, np.ndarray]:
        dots, norms = [], np.zeros(0)
        for start in range(0, len(subject.source), settings.query_chunk):
            rows = slice(start, start + settings.query_chunk)
            asked = jax.tree.map(lambda a, rows=rows: jnp.asarray(a[rows]), subject.queries)
            found, norms = _in_batches(both, prepare(subject.params, asked), data, settings)
            dots.append(found)
        return np.concatenate(dots), norms

    reference = subject.parts["reference"]
    dots, of_train = against(subject.train)
    products, of_queries = against(subject.queries)
    return Slopes(dots, products[:, reference], of_train, of_queries)


def _first_order(subject: Subject, settings: Settings, rows: np.ndarray) -> Iterator[Scores]:
    loss, params, reference = subject.loss_fn, subject.params, subject.parts["reference"]
    dots, products, of_train, of_queries = first_order(subject, settings)
    slopes = dots / of_queries[:, None]
    yield Scores("grad_dot", "gradients", rows, dots)
    yield Scores("grad_cos", "gradients", rows, slopes / np.maximum(of_train, 1e-30))
    yield Scores("JVP", "forward", rows, dots)
    losses = _in_batches(loss, params, subject.train, settings)
    yield Scores("JVP / loss", "forward", rows, slopes / (losses + 1e-6))
    if settings.num_probes:
        probed = lambda params, batch: estimated_gradient_norms(
            scoring_loss(loss), params, batch, jax.random.key(settings.seed), settings.num_probes
        )
        size = _in_batches(probed, params, subject.train, settings)
        name = f"JVP / norm by {settings.num_probes} probes"
        yield Scores(name, "forward", rows, slopes / (size + 1e-30))
    relative = relative_to_reference(slopes, slopes[reference])
    yield Scores("JVP / references", "forward", rows, relative)
    cosines = products / of_queries[:, None] / of_queries[reference]
    for count in sorted({min(FEW_REFERENCES, len(reference)), len(reference)}):
        own = reference[:count]
        found = whitened(slopes, slopes[own], cosines[:, :count], cosines[own, :count])
        name = f"JVP, whitened by {count} references"
        yield Scores(name, "forward", rows, found)
    exact = whitened(slopes, slopes[reference], cosines, cosines[reference], norms=of_train)
    yield Scores(LAST_CHEAP, "whitened gradients", rows, exact)


def whitened(
    slopes: np.ndarray,
    of_references: np.ndarray,
    products: np.ndarray,
    among: np.ndarray,
    ridge: float = RIDGE,
    norms: np.ndarray | None = None,
    size: Callable[[np.ndarray], np.ndarray] = lambda own: np.mean(np.abs(own), axis=0),
) -> np.ndarray:
    """The scores of `reference_influence`, from slopes along unit gradients that are there already.

    Args:
        slopes: [K, N], along the queries' unit gradients.
        of_references: [R, N], along the references'.
        products: [K, R], of unit gradients.
        among: [R, R], of the references' unit gradients.
        ridge: as there.
        norms: [N], gradient norms of the training examples: divides by the exact size in the
            metric in place of the references' estimate of it.
        size: that estimate, from the references' own scores [R, N].
    """
    inverse = np.linalg.inv(among.astype(np.float64) + ridge * np.eye(len(among)))
    found = slopes - products @ inverse @ of_references
    own = inverse @ of_references
    asked = 1 - np.sum((products @ inverse) * products, axis=1)
    found = found / np.sqrt(np.maximum(asked, 1e-9))[:, None]
    if norms is None:
        scale = size(ridge * own)
    else:
        scale = np.sqrt(np.maximum(norms**2 - np.sum(of_references * own, axis=0), 0))
    return np.where(scale > 0, found / np.where(scale > 0, scale, 1), 0.0)


def _finite(
    subject: Subject, settings: Settings, rows: np.ndarray, rate: float
) -> Iterator[Scores]:
    method = forward_inf(subject.loss_fn, optimizer=optax.sgd(rate))
    asked = jax.tree.map(lambda a: a[rows], subject.queries)
    found = _score(method, subject.params, asked, subject.train, settings)
    yield Scores(f"finite step, lr {rate:g}", "forward", rows, found)
    losses = _in_batches(subject.loss_fn, subject.params, subject.train, settings)
    yield Scores(f"finite step, lr {rate:g} / loss", "forward", rows, found / (losses + 1e-6))


def _released(subject: Subject, settings: Settings, rows: np.ndarray) -> Iterator[Scores]:
    method = released_forward_inf(subject.stateful, key=jax.random.key(settings.seed))
    asked = jax.tree.map(lambda a: a[rows], subject.queries)
    params = subject.params, subject.state
    found = _score(method, params, asked, subject.train, settings)
    yield Scores(RELEASED, "forward", rows, found)


def _in_batches(fn: Any, params: Any, data: Any, settings: Settings) -> Any:
    """`fn(params, batch) -> [..., B]`, or several of them, over all rows."""
    run = jax.jit(fn)
    count, size = len(data["y"]), min(settings.batch_size, len(data["y"]))
    parts = []
    for start in range(0, count, size):
        # the last rows again in place of padding: one shape
        first = max(0, min(start, count - size))
        batch = jax.tree.map(lambda a, first=first: jnp.asarray(a[first : first + size]), data)
        found = run(params, batch)
        parts.append(jax.tree.map(lambda a, new=start - first: np.asarray(a)[..., new:], found))
    return jax.tree.map(lambda *found: np.concatenate(found, axis=-1), *parts)


def default_scorer(is_accelerator: bool) -> Any:
    """How slopes are taken: by contractions, on an accelerator with a bound on scratch memory."""
    if is_accelerator:
        return Planner(memory_budget=6 << 30, candidates=("ghost", "gradients"))
    return "gradients"
