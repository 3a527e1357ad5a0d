"""Matrix products and convolutions in one form: S times a matrix [I, O], at T positions.

An example's gradient of such a kernel is `Σ_t entering[s, t, i] · slopes[s, t, o]`. S counts what
the product treats as a batch (heads, say) or a convolution as groups.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxinf.influence.ghost.trace import is_inexact


@dataclass(frozen=True)
class Sizes:
    """S, T, I and O of one product."""

    batch: int
    positions: int
    entering: int
    leaving: int

    @property
    def kernel(self) -> int:
        """Entries of the kernel."""
        return self.batch * self.entering * self.leaving


@dataclass(frozen=True)
class Product:
    """A `dot_general` with a parameter on one side; equal ones lay the kernel out alike.

    Attributes:
        kernel: which operand the parameter is, 0 or 1.
        shapes: of both operands.
        contracted: axes of both that are summed over.
        batched: axes of both that are batches.
    """

    kernel: int
    shapes: tuple[tuple[int, ...], ...]
    contracted: tuple[tuple[int, ...], ...]
    batched: tuple[tuple[int, ...], ...]

    def _free(self, side: int) -> tuple[int, ...]:
        taken = {*self.contracted[side], *self.batched[side]}
        return tuple(axis for axis in range(len(self.shapes[side])) if axis not in taken)

    def _size(self, side: int, axes: tuple[int, ...]) -> int:
        return math.prod(self.shapes[side][axis] for axis in axes)

    @property
    def sizes(self) -> Sizes:
        """S, T, I, O."""
        k, x = self.kernel, 1 - self.kernel
        return Sizes(
            self._size(k, self.batched[k]),
            self._size(x, self._free(x)),
            self._size(k, self.contracted[k]),
            self._size(k, self._free(k)),
        )

    @property
    def layout(self) -> Any:
        """Equal for products that lay out the kernel alike."""
        k = self.kernel
        return ("dot", self.batched[k], self.contracted[k], self._free(k))

    def entering(self, operands: list[Any]) -> jax.Array:
        """[S, T, I]."""
        x, side, s = operands[1 - self.kernel], 1 - self.kernel, self.sizes
        order = (*self.batched[side], *self._free(side), *self.contracted[side])
        return jnp.transpose(x, order).reshape(s.batch, s.positions, s.entering)

    def kernels(self, w: jax.Array) -> jax.Array:
        """[S, I, O]."""
        k, s = self.kernel, self.sizes
        order = (*self.batched[k], *self.contracted[k], *self._free(k))
        return jnp.transpose(w, order).reshape(s.batch, s.entering, s.leaving)

    def slopes(self, g: jax.Array) -> jax.Array:
        """[S, T, O]."""
        s = self.sizes
        if self.kernel == 1:
            return g.reshape(s.batch, s.positions, s.leaving)
        return jnp.swapaxes(g.reshape(s.batch, s.leaving, s.positions), 1, 2)


@dataclass(frozen=True)
class Convolution:
    """A `conv_general_dilated` whose kernel is a parameter.

    Attributes:
        shapes: of input and kernel, in the equation's own layouts.
        specs: the axes of input, kernel and output, each (batch, channel, *spatial) or, for the
            kernel, (out, in, *spatial).
        strides: of the window.
        padding: low and high, of each spatial axis.
        dilations: of the input and of the kernel.
        groups: of channels.
        leaving: spatial sizes of the output.
    """

    shapes: tuple[tuple[int, ...], ...]
    specs: tuple[tuple[int, ...], ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilations: tuple[tuple[int, ...], ...]
    groups: int
    leaving: tuple[int, ...]

    @property
    def _window(self) -> tuple[int, ...]:
        return tuple(self.shapes[1][axis] for axis in self.specs[1][2:])

    @property
    def sizes(self) -> Sizes:
        """S (groups), T (places of the window), I (what it covers), O."""
        out, channels = (self.shapes[1][axis] for axis in self.specs[1][:2])
        rows = self.shapes[0][self.specs[0][0]]
        return Sizes(
            self.groups,
            rows * math.prod(self.leaving),
            channels * math.prod(self._window),
            out // self.groups,
        )

    @property
    def layout(self) -> Any:
        """Equal for convolutions that lay out the kernel alike."""
        return ("conv", self.specs[1], self.groups)

    def entering(self, operands: list[Any]) -> jax.Array:
        """[S, T, I]: what the window covers at each place, cut out an axis at a time."""
        s, spatial = self.sizes, len(self.strides)
        x = jnp.transpose(operands[0], self.specs[0])
        dilated = zip(self.padding, self.dilations[0], strict=True)
        edges = [(0, 0, 0), (0, 0, 0), *((low, high, d - 1) for (low, high), d in dilated)]
        x = lax.pad(x, jnp.zeros((), x.dtype), edges)
        for axis in range(spatial):
            at = 2 + 2 * axis  # after [N, C] and the pairs (offset, place) made so far
            step, spacing = self.strides[axis], self.dilations[1][axis]
            reach = (self.leaving[axis] - 1) * step + 1
            cuts = [
                lax.slice_in_dim(x, offset * spacing, offset * spacing + reach, step, at)
                for offset in range(self._window[axis])
            ]
            x = jnp.stack(cuts, axis=at)
        rows, channels = x.shape[:2]
        x = x.reshape(rows, self.groups, channels // self.groups, *x.shape[2:])
        offsets, places = range(3, x.ndim, 2), range(4, x.ndim, 2)
        x = jnp.transpose(x, (1, 0, *places, 2, *offsets))
        return x.reshape(s.batch, s.positions, s.entering)

    def kernels(self, w: jax.Array) -> jax.Array:
        """[S, I, O]."""
        s = self.sizes
        w = jnp.transpose(w, self.specs[1]).reshape(s.batch, s.leaving, s.entering)
        return jnp.swapaxes(w, 1, 2)

    def slopes(self, g: jax.Array) -> jax.Array:
        """[S, T, O]."""
        s = self.sizes
        batch, channel, *spatial = self.specs[2]
        g = jnp.transpose(g, (channel, batch, *spatial))
        return jnp.swapaxes(g.reshape(s.batch, s.leaving, s.positions), 1, 2)


def as_linear(eqn: Any, positions: tuple[int, ...]) -> Product | Convolution | None:
    """The equation in this form; None where it is no such product of real numbers."""
    real = all(
        is_inexact(v) and not jnp.issubdtype(v.aval.dtype, jnp.complexfloating)
        for v in (*eqn.invars, *eqn.outvars)
    )
    if not real or len(positions) != 1:
        return None
    settings = eqn.params
    shapes = tuple(tuple(v.aval.shape) for v in eqn.invars[:2])
    if eqn.primitive.name == "dot_general":
        contracted, batched = (
            tuple(tuple(axes) for axes in pair) for pair in settings["dimension_numbers"]
        )
        return Product(positions[0], shapes, contracted, batched)
    if eqn.primitive.name != "conv_general_dilated" or positions != (1,):
        return None
    if settings["batch_group_count"] != 1:
        return None
    specs = tuple(tuple(spec) for spec in settings["dimension_numbers"])
    return Convolution(
        shapes,
        specs,
        tuple(settings["window_strides"]),
        tuple(tuple(pair) for pair in settings["padding"]),
        (tuple(settings["lhs_dilation"]), tuple(settings["rhs_dilation"])),
        settings["feature_group_count"],
        tuple(eqn.outvars[0].aval.shape[axis] for axis in specs[2][2:]),
    )
