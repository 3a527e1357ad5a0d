"""What enters and leaves the linear layers of a flax.linen model, watched from inside its loss.

The user's own loss is run as it is; an interceptor sees every `Dense`, `DenseGeneral` (attention's
projections among them) and `Conv` that it calls. Summed over positions, the outer products of
what enters a layer and of the loss's slopes in what leaves it are its per-example gradients.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Float

from jaxinf.typing import Batch, Params


class Layer(NamedTuple):
    """A linear layer: the positions of its kernel and its bias among the leaves of params."""

    path: tuple[str, ...]
    kernel: int
    bias: int | None


class Traffic(NamedTuple):
    """Of one layer, with T positions (pixels, tokens) per example.

    Attributes:
        entering: float[B, T, I], with a one at the end where the layer has a bias.
        slopes: float[B, T, O], derivative of each example's value in what leaves the layer.
    """

    entering: Float[jax.Array, "B T I"]
    slopes: Float[jax.Array, "B T O"]


def find_layers(measured: Partial, params: Params, batch: Batch) -> list[Layer]:
    """The linear layers that the loss calls once, and whose parameters are in `params`.

    A layer that is called twice, convolves in groups or pads by wrapping round is left out.
    """
    watch = _Watch({})
    jax.eval_shape(lambda at: watch.run(measured, at, batch), params)
    at = {
        _names(path): i for i, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(params))
    }
    found = []
    for path in watch.seen:
        # a user's params may be the variables of the model, or those under "params"
        for root in ((), ("params",)):
            kernel = at.get((*root, *path, "kernel"))
            if kernel is not None and path not in watch.repeated:
                found.append(Layer(path, kernel, at.get((*root, *path, "bias"))))
    return found


def traffic(measured: Partial, params: Params, batch: Batch, layers: list[Layer]) -> list[Traffic]:
    """What passes through each layer, in the loss's own forward and backward pass."""
    shapes = _Watch({})
    jax.eval_shape(lambda at: shapes.run(measured, at, batch), params)
    probes = {layer.path: jnp.zeros(*shapes.leaving[layer.path]) for layer in layers}

    def total(probes: dict[tuple[str, ...], jax.Array]) -> tuple[jax.Array, Any]:
        watch = _Watch(probes)
        values = watch.run(measured, params, batch)
        return jnp.sum(values), {path: watch.seen[path] for path in probes}

    slopes, entering = jax.grad(total, has_aux=True)(probes)
    rows = jax.tree.leaves(batch)[0].shape[0]
    found = []
    for layer in layers:
        inside = entering[layer.path]
        inside = inside.reshape(rows, -1, inside.shape[-1])
        if layer.bias is not None:
            ones = jnp.ones((*inside.shape[:2], 1), inside.dtype)
            inside = jnp.concatenate([inside, ones], axis=2)
        outside = slopes[layer.path].reshape(rows, inside.shape[1], -1)
        found.append(Traffic(inside, outside))
    return found


class _Watch:
    """An interceptor that records what enters each layer, and adds probes to what leaves it."""

    def __init__(self, probes: dict[tuple[str, ...], jax.Array]):
        self.probes = probes
        self.seen: dict[tuple[str, ...], jax.Array] = {}
        self.leaving: dict[tuple[str, ...], tuple[Any, Any]] = {}
        self.repeated: set[tuple[str, ...]] = set()
        self._modules: dict[tuple[str, ...], Any] = {}

    def run(self, measured: Partial, params: Params, batch: Batch) -> jax.Array:
        import flax.linen as nn  # heavy, and only EK-FAC needs it

        with nn.intercept_methods(self._intercept):
            return measured(params, batch)

    def _intercept(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        leaving = call(*args, **kwargs)
        module, path = context.module, context.module.path
        entering = None
        if context.method_name == "__call__" and len(args) == 1:
            entering = _entering(module, args[0])
        if entering is None:
            return leaving
        # a loss may be traced more than once, each time with modules of its own
        if self._modules.get(path) is module:
            self.repeated.add(path)
        self._modules[path] = module
        self.seen[path] = entering
        self.leaving[path] = (leaving.shape, leaving.dtype)
        return leaving + self.probes[path] if path in self.probes else leaving


def _entering(module: Any, x: jax.Array) -> jax.Array | None:
    """Input as [..., I] in the order of the kernel's rows; None where it is no such layer."""
    import flax.linen as nn

    if type(module) is nn.Dense:
        return x
    if type(module) is nn.DenseGeneral and not module.batch_dims:
        axes = (module.axis,) if isinstance(module.axis, int) else tuple(module.axis)
        last = sorted(axis % x.ndim for axis in axes)
        if last != list(range(x.ndim - len(axes), x.ndim)):
            return None
        return x.reshape(*x.shape[: x.ndim - len(axes)], math.prod(x.shape[last[0] :]))
    if type(module) is nn.Conv:
        return _patches(module, x)
    return None


def _patches(conv: Any, x: jax.Array) -> jax.Array | None:
    from flax.linen.linear import canonicalize_padding

    size = tuple(conv.kernel_size)
    spatial = len(size)
    each = lambda value: (value or 1,) * spatial if isinstance(value, int | None) else tuple(value)
    plain = conv.feature_group_count == 1 and set(each(conv.input_dilation)) == {1}
    padding = canonicalize_padding(conv.padding, spatial)
    named = isinstance(padding, str) and padding not in ("SAME", "VALID")
    if not plain or x.ndim != spatial + 2 or named:
        return None
    letters = "".join("XYZ"[i] for i in range(spatial))
    found = lax.conv_general_dilated_patches(
        x,
        size,
        each(conv.strides),
        padding,
        rhs_dilation=each(conv.kernel_dilation),
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )
    # channels come first there, and last in a kernel
    found = found.reshape(*found.shape[:-1], x.shape[-1], math.prod(size))
    return jnp.swapaxes(found, -1, -2).reshape(*found.shape[:-2], -1)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(part, "key", getattr(part, "name", part))) for part in path)
