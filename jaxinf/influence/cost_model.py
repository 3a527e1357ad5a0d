"""How fast a machine does each kind of work: from operations to seconds."""

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxinf.influence.ghost.counts import Work


@dataclass(frozen=True)
class CostModel:
    """Rates of one device. The defaults only rank candidates; `measure_rates` makes seconds.

    Attributes:
        product_rate: operations per second in a matrix product.
        element_rate: operations per second element by element, memory-bound.
        convolution_slowdown: time of an operation in a convolution over one in a product.
        kernel_gradient_slowdown: the same where each example has a kernel gradient of its own,
            by reverse mode (a grouped convolution).
    """

    product_rate: float = 5e10
    element_rate: float = 2e9
    convolution_slowdown: float = 2.0
    kernel_gradient_slowdown: float = 12.0

    def seconds(self, work: Work) -> float:
        """Predicted time."""
        heavy = (
            work.products
            + self.convolution_slowdown * work.convolutions
            + self.kernel_gradient_slowdown * work.kernel_gradients
        )
        return heavy / self.product_rate + work.elements / self.element_rate


def measure_rates(size: int = 1024, repeats: int = 3) -> CostModel:
    """Time one product and one element-wise pass on the default device. Takes a second.

    Hold on to the result and hand it to a `Planner`: nothing is kept here.

    Args:
        size: rows and columns of the matrices.
        repeats: the best of so many.

    Returns:
        A `CostModel` with this device's rates.

    Example:
        >>> measure_rates(64, 1).product_rate > 0
        True
    """
    a = jnp.ones((size, size), jnp.float32)
    product = _best(jax.jit(lambda a: a @ a), a, repeats)
    element = _best(jax.jit(lambda a: jnp.sqrt(a * a + 1.0)), a, repeats)
    return CostModel(2.0 * size**3 / product, 3.0 * size**2 / element)


def _best(fn: jax.stages.Wrapped, a: jax.Array, repeats: int) -> float:
    jax.block_until_ready(fn(a))
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(fn(a))
        times.append(time.perf_counter() - began)
    return min(times)
