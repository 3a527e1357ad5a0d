"""LAVA: what each training example adds to the distance from a trusted validation set."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from jaxinf.engine.mesh import Mesh
from jaxinf.errors import InputError
from jaxinf.typing import AnyArray
from jaxinf.valuation.calibration import calibrated_gradients
from jaxinf.valuation.certificate import Certificate, certify
from jaxinf.valuation.distances import in_float32
from jaxinf.valuation.label_distances import FAR
from jaxinf.valuation.pose import (
    LabelCost,
    Posed,
    between_classes,
    pose,
)
from jaxinf.valuation.routes import Route, Solved, solver_for
from jaxinf.valuation.schedule import annealed_label_distances
from jaxinf.valuation.sides import read_sides, warn_of_classes
from jaxinf.valuation.solvers import (
    SOFT,
    Solver,
    check_options,
    default_contrast,
    starting_diameter,
)

# of the released code, in the units of the cost
_REFERENCE_EPSILON = 0.1


class LavaResult(NamedTuple):
    """Values, and everything needed to judge them. Rows are those of the training set.

    Attributes:
        values: float[N], minus the calibrated gradients: higher = more worth having.
        calibrated_gradients: float[N], change of the distance, less `contrast` times the mean
            cost, per mass moved onto an example.
        distance: float, the regularised class-wise Wasserstein distance.
        f: float[N], potentials: derivatives of the distance in the training masses.
        g: float[M], the same in the validation masses.
        label_distances: float[C_train, C_valid], in the units of the feature cost.
        train_classes: [C_train], the labels that the rows of `label_distances` stand for.
        valid_classes: [C_valid], and the columns.
        epsilon: float, in the units of the cost.
        converged: bool, whether the problem that was posed was solved to its threshold, and the
            label distances in it to ten times theirs.
        num_iterations: int.
        marginal_error: float, Σ_j |column sum of the plan − its target|.
        label_error: float, the largest marginal error among the label distances (asked for: 1e-3;
            0 for `"reference"`, whose schedule has none).
        certificate: how far the numbers can be trusted.
        solver: which one gave them.
        contrast: float, the share of the mean cost that was taken off.
    """

    values: jax.Array
    calibrated_gradients: jax.Array
    distance: float | jax.Array
    f: jax.Array
    g: jax.Array
    label_distances: jax.Array
    train_classes: np.ndarray
    valid_classes: np.ndarray
    epsilon: float | jax.Array
    converged: bool | jax.Array
    num_iterations: int | jax.Array
    marginal_error: float | jax.Array
    label_error: float | jax.Array
    certificate: Certificate
    solver: str
    contrast: float | jax.Array


@in_float32
def lava(
    train_features: AnyArray,
    train_labels: AnyArray,
    valid_features: AnyArray,
    valid_labels: AnyArray,
    /,
    *,
    solver: Solver = "annealed",
    epsilon: float = 0.01,
    relative_epsilon: bool = True,
    tau: float = 0.9,
    contrast: float | None = None,
    feature_weight: float = 1.0,
    label_weight: float = 1.0,
    label_cost: LabelCost = "consistent",
    label_epsilon: float = 0.05,
    p: float = 2,
    train_weights: AnyArray | None = None,
    valid_weights: AnyArray | None = None,
    threshold: float = 1e-3,
    max_iterations: int = 2000,
    num_checks: int = 1,
    route: Route = "auto",
    max_cost_bytes: int = 4 << 30,
    mesh: Mesh | None = None,
) -> LavaResult:
    """Value every training example by the transport from the training to the validation set.

    The ground cost is λx ‖x − x'‖^p / p + λy W[y, y'], where W[y, y'] is the transport cost
    between the examples of two classes, and an example's value is minus its calibrated gradient:
    f_i less the mean of the others' (LAVA, ICLR 2023, section 3). No model is trained.

    Sign: higher values = more worth having; `calibrated_gradients` have the paper's sign.

    Args:
        train_features: float[N, ...], N ≥ 2; trailing axes are flattened. Features on unlike
            scales (tabular columns) must be standardised first: `jaxinf.valuation.standardise`.
        train_labels: int[N] of any numbering, or float[N, C] shares of each class (soft labels).
            Regression targets are cut into classes by `jaxinf.valuation.bin_targets`.
        valid_features: float[M, ...], embedded the same way.
        valid_labels: int[M], or float[M, C'] shares.
        solver: `"annealed"` is soft by design: one averaged update for each of a few falling ε,
            as the released code's, but with ε and label distances that scale with the data: it
            finds wrong labels better than that (docs/benchmarks.md). It solves no transport
            problem: `converged` is False, and the certificate says by how much the potentials are
            off as derivatives. `"balanced"` transports onto the whole validation set (classical
            duals: they tell best what removing an example does to the distance); `"semi-relaxed"`
            lets validation mass be left over at a price; `"one-pass"` is its limit, the soft
            distance to the nearest validation examples; `"reference"` runs the released code's
            schedule step for step, with its ε of 0.1 whatever the scale of the data.
        epsilon: strength of the entropic term; `"reference"` has its own.
        relative_epsilon: whether it is a share of the mean cost.
        tau: for `"semi-relaxed"`, ρ/(ρ + ε) of the validation marginal: 1 is balanced, 0 free.
        contrast: share κ of the mean cost that is taken off the distance before it is
            differentiated: values are those of OT_ε − κ OT_∞, where OT_∞ = Σ a_i b_j c_ij is the
            cost without any plan. An example near the middle of all the data is cheap to carry
            anywhere; taking off a part of that finds poisons and blends that the transport alone
            takes for typical (docs/valuation.md). By default, `"annealed"` takes off 0.25, or
            less where that would outweigh the potentials, and the others nothing: their
            potentials are meant as they are.
        feature_weight: λx.
        label_weight: λy; at 0 no label distance is computed.
        label_cost: `"consistent"` gives the label distance the same half as the feature cost
            (½W₂² beside ½‖x − x'‖²); `"reference"` halves it once more, as the released code
            does. `solver="reference"` computes it by the released schedule.
        label_epsilon: strength of the entropic term in label distances, a share of the mean
            cost of the pair.
        p: cost exponent, 1 or more.
        train_weights: float[N] positive masses, scaled to a sum of one (default: uniform). They
            weigh the transport; label distances take the examples of a class alike.
        valid_weights: float[M].
        threshold: marginal error to which the problem is solved.
        max_iterations: where to give up; the result then says `converged=False`.
        num_checks: examples on which the certificate really moves mass, spread over the order of
            the values, the best first (1: it alone; 3: the best, the median and the worst). Each
            takes two solves, or one for `"annealed"` and `"reference"`.
        route: `"materialised"` holds the cost and its exponential, `"streamed"` holds neither,
            `"kernel"` streams by a fused kernel (accelerators, p = 2), `"ott"` gives the problem
            to ott's own Sinkhorn (`"balanced"`, no mesh); `"auto"` chooses between the first two
            by `max_cost_bytes`. All give the same numbers.
        max_cost_bytes: what the materialised route may take on one device.
        mesh: split the training rows over its `data` axis. Not under jit.

    Returns:
        A `LavaResult`. It composes with jit in the features and the weights when labels are
        closed over and `num_checks=0`; gradients pass through `class_wise_distance` instead.

    Raises:
        InputError: for empty or ragged input, NaN or Inf, sets of unlike width, constant features,
            masses that are not positive, an ε that the dtype does not resolve, unknown options.

    Warns:
        ValuationWarning: a class is missing on one side, or has a single example.

    Example:
        >>> x = np.array([[0.0], [0.1], [0.2], [5.0]], np.float32)
        >>> y = np.array([0, 0, 0, 0])
        >>> found = lava(x, y, x[:3], y[:3], label_weight=0.0)
        >>> int(np.argmin(found.values)), found.values.shape
        (3, (4,))
    """
    check_options(
        solver, epsilon, tau, label_cost, label_epsilon, p, route, num_checks, contrast, mesh
    )
    train, valid = read_sides(
        train_features, train_labels, valid_features, valid_labels, train_weights, valid_weights
    )
    if train.features.shape[0] < 2:
        raise InputError("values compare training examples with one another: there is only one")
    warn_of_classes(train, valid)
    reference = solver == "reference"
    label_error = jnp.zeros((), train.features.dtype)
    if reference and label_weight != 0:
        between = annealed_label_distances(
            train.features, train.blocks, valid.features, valid.blocks, epsilon=_REFERENCE_EPSILON
        )
    else:
        between, label_error = between_classes(
            train, valid, epsilon=label_epsilon, label_weight=label_weight, p=p, mesh=mesh
        )
    posed = pose(
        train,
        valid,
        between,
        epsilon=_REFERENCE_EPSILON if reference else epsilon,
        relative_epsilon=relative_epsilon and not reference,
        feature_weight=feature_weight,
        label_weight=label_weight / 2 if label_cost == "reference" else label_weight,
        p=p,
    )
    solve = solver_for(
        posed,
        tau={"semi-relaxed": tau, "one-pass": 0.0}.get(solver, 1.0),
        diameter=starting_diameter(solver, train, valid),
        threshold=threshold,
        max_iterations=max_iterations,
        route=route,
        max_cost_bytes=max_cost_bytes,
        mesh=mesh,
    )
    solved = solve(train.weights, jnp.zeros_like(valid.weights))
    found = solved.transport
    calibrated = lambda f: calibrated_gradients(f, None if train_weights is None else train.weights)
    gradients = calibrated(found.f)
    certificate = certify(
        solve,
        solved,
        train.weights,
        found.f,
        gradients,
        num_checks=num_checks,
        both_ways=solver not in SOFT,
    )
    share: float | jax.Array = 0.0 if contrast is None else contrast
    if contrast or (contrast is None and solver == "annealed"):
        means = _row_means(posed.geometry, valid.weights)
        if contrast is None:
            share = default_contrast(found.f, means, train.weights)
        gradients = calibrated(found.f - share * means)
    return _finish(solved, gradients, certificate, posed, (between, label_error), solver, share)


_row_means = jax.jit(lambda geometry, b: geometry.row_means(b))


def _finish(
    solved: Solved,
    gradients: Float[jax.Array, " N"],
    certificate: Certificate,
    posed: Posed,
    labels: tuple[jax.Array, jax.Array],
    solver: Solver,
    contrast: float | jax.Array,
) -> LavaResult:
    found, (between, label_error) = solved.transport, labels
    return LavaResult(
        values=-gradients,
        calibrated_gradients=gradients,
        distance=_plain(solved.value),
        f=found.f,
        g=found.g,
        label_distances=between,
        train_classes=posed.train.classes,
        valid_classes=posed.valid.classes,
        epsilon=_plain(posed.epsilon),
        converged=_plain(found.converged & (label_error <= FAR)),
        num_iterations=_plain(found.num_iterations),
        marginal_error=_plain(found.marginal_error),
        label_error=_plain(label_error),
        certificate=Certificate(*map(_plain, certificate[:-1]), checked=certificate.checked),
        solver=solver,
        contrast=_plain(contrast),
    )


def _plain(value: Any) -> Any:
    """A Python number, unless it is traced."""
    return value if isinstance(value, Tracer) else np.asarray(value).item()
