"""The solvers of `lava` by name: what each asks of the problem, and which options are refused."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxinf.engine.mesh import Mesh
from jaxinf.errors import InputError
from jaxinf.valuation.routes import Route
from jaxinf.valuation.schedule import bounding_diameter
from jaxinf.valuation.sides import Side

Solver = Literal["annealed", "balanced", "semi-relaxed", "one-pass", "reference"]
SOLVERS: tuple[Solver, ...] = get_args(Solver)

# these stop early by design
SOFT: tuple[Solver, ...] = ("annealed", "reference")

# chosen on seeds that no table shows: `benchmarks.lava_contrast`
_CONTRAST, _SHARE_OF_SPREAD = 0.25, 0.5


def default_contrast(
    f: Float[jax.Array, " N"], means: Float[jax.Array, " N"], weights: Float[jax.Array, " N"]
) -> Float[jax.Array, ""]:
    """A quarter of the mean costs, but at most half as much as spreads as far as f does.

    Where features have few columns, the nearest validation example lies near and potentials differ
    little, however far out an example is: the full quarter would leave little but the mean costs.

    Args:
        f: float[N] potentials.
        means: float[N], the mean cost of each training example.
        weights: float[N] masses, a sum of one.

    Example:
        >>> f, weights = jnp.array([0.0, 2.0]), jnp.array([0.5, 0.5])
        >>> [float(default_contrast(f, jnp.array([0.0, c]), weights)) for c in (1.0, 10.0)]
        [0.25, 0.10000000149011612]
    """
    spread = lambda v: jnp.sqrt(jnp.sum(weights * (v - jnp.sum(weights * v)) ** 2))
    of_means = spread(means)
    # costs that are all alike have nothing to take off
    ratio = spread(f) / jnp.where(of_means > 0, of_means, 1)
    return jnp.minimum(_SHARE_OF_SPREAD * ratio, _CONTRAST)


def starting_diameter(solver: Solver, train: Side, valid: Side) -> jax.Array | None:
    """Where an annealed solver begins; None for one that solves at a single ε."""
    if solver == "annealed":
        return _radius_twice(train, valid)
    return _released_diameter(train, valid) if solver == "reference" else None


def _radius_twice(train: Side, valid: Side) -> jax.Array:
    """A bound on the distance of two points that turning the features does not change."""
    squares = [jnp.max(jnp.sum(side.features**2, axis=1)) for side in (train, valid)]
    return 2 * jnp.sqrt(jnp.max(jnp.stack(squares)))


def _released_diameter(train: Side, valid: Side) -> jax.Array:
    """The box around the points with their class as one more column, as the released code has them.

    Validation classes are numbered after the training classes there.
    """
    columns = []
    for side, first in ((train, 0), (valid, len(train.classes))):
        labels = side.labels if side.labels.ndim == 1 else np.argmax(side.labels, axis=1)
        numbers = jnp.asarray(np.asarray(labels) + first, side.features.dtype)
        columns.append(jnp.concatenate([side.features, numbers[:, None]], axis=1))
    return bounding_diameter(*columns)


def check_options(
    solver: str,
    epsilon: float,
    tau: float,
    label_cost: str,
    label_epsilon: float,
    p: float,
    route: str,
    num_checks: int,
    contrast: float | None,
    mesh: Mesh | None = None,
) -> None:
    """Refuse what no solver takes.

    Raises:
        InputError: naming the option and what it may be.
    """
    if solver not in SOLVERS:
        raise InputError(f"solver must be one of {', '.join(SOLVERS)}, not {solver!r}")
    if label_cost not in ("consistent", "reference"):
        raise InputError(f"label_cost must be 'consistent' or 'reference', not {label_cost!r}")
    for name, value in (("epsilon", epsilon), ("label_epsilon", label_epsilon)):
        if not value > 0:
            raise InputError(f"{name} must be positive, not {value}")
    if not 0 < tau <= 1:
        raise InputError(f"tau must lie in (0, 1], not {tau}: solver='one-pass' is its limit at 0")
    if p < 1:
        raise InputError(f"p must be 1 or more, not {p}")
    if route not in get_args(Route):
        raise InputError(f"route must be one of {', '.join(get_args(Route))}, not {route!r}")
    if route == "kernel" and p != 2:
        raise InputError(f"route='kernel' needs p=2, not {p}: use route='streamed'")
    if route == "ott" and solver != "balanced":
        raise InputError(f"route='ott' solves solver='balanced' alone, not {solver!r}")
    if route == "ott" and mesh is not None:
        raise InputError("route='ott' takes no mesh: ott gathers the rows on every device")
    if num_checks < 0:
        raise InputError(f"num_checks must be 0 or more, not {num_checks}")
    if contrast is not None and not 0 <= contrast <= 1:
        raise InputError(f"contrast must lie in [0, 1], not {contrast}")
