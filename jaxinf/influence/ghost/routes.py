"""In which order to multiply: what each route of a contraction costs and holds."""

from typing import Literal, NamedTuple

from jaxinf.influence.ghost.linear import Sizes

Name = Literal["gradient", "leaving", "entering", "factors"]


class Route(NamedTuple):
    """One order of multiplication, for one example: operations, and bytes of what it makes."""

    name: Name
    flops: float
    bytes: float


def routes(sizes: Sizes, num_directions: int, rank: int | None = None) -> list[Route]:
    """The ways to contract an example's gradient of a kernel with K directions.

    With T positions, `gradient` makes Σ_t x_t ⊗ g_t first and pays for K little; `leaving` moves
    each direction's kernel by x and contracts with g, `entering` the other way round: without
    the gradient being formed. `factors` takes directions Σ_r X_r ⊗ Δ_r of rank R as they are:
    Σ_tr (x_t · X_r) (g_t · Δ_r), which pays while T·R (I + O) < I·O.

    Args:
        sizes: S, T, I, O of the product.
        num_directions: K.
        rank: R where the directions are factors; only `factors` is open then.

    Example:
        >>> cheapest(routes(Sizes(1, 128, 64, 64), 32)).name
        'gradient'
        >>> cheapest(routes(Sizes(1, 1, 64, 64), 2)).name
        'leaving'
    """
    s, t, i, o = sizes.batch, sizes.positions, sizes.entering, sizes.leaving
    k = num_directions
    if rank is not None:
        flops = 2.0 * k * s * t * rank * (i + o + 1)
        return [Route("factors", flops, 8.0 * k * s * t * rank)]
    return [
        Route("gradient", 2.0 * s * i * o * (t + k), 4.0 * s * i * o),
        Route("leaving", 2.0 * k * s * t * o * (i + 1), 4.0 * k * s * t * o),
        Route("entering", 2.0 * k * s * t * i * (o + 1), 4.0 * k * s * t * i),
    ]


def norm_routes(sizes: Sizes) -> list[Route]:
    """The ways to the squared norm of an example's gradient of a kernel.

    `factors` is Σ_tu (x_t · x_u) (g_t · g_u), `gradient` forms it.
    """
    s, t, i, o = sizes.batch, sizes.positions, sizes.entering, sizes.leaving
    return [
        Route("gradient", 2.0 * s * i * o * (t + 1), 4.0 * s * i * o),
        Route("factors", 2.0 * s * t * t * (i + o + 1), 8.0 * s * t * t),
    ]


def cheapest(found: list[Route], budget: float = float("inf")) -> Route:
    """The fewest operations among what fits one example in `budget` bytes, or else the least."""
    fitting = [route for route in found if route.bytes <= budget]
    if not fitting:
        return min(found, key=lambda route: route.bytes)
    return min(fitting, key=lambda route: route.flops)
