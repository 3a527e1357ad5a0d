"""Devices: the one file that knows `shard_map` and `pmap`.

Rows are split over the `data` axis of a mesh; state is replicated over it (and may be sharded
over other axes, as the user's own sharding says). Both ways through use pmap's convention: a
leading axis D, one slice per device, on what goes in and on what comes out.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinf.errors import InputError
from jaxinf.typing import Batch, PyTree

DATA_AXIS = "data"
Parallel: TypeAlias = Literal["shard_map", "pmap"]


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with one axis, `data`, over the given devices (default: all of this process).

    Example:
        >>> data_mesh().axis_names
        ('data',)
    """
    # a bare Mesh has Auto axes on every version; jax.make_mesh has not
    return Mesh(np.asarray(devices if devices is not None else jax.local_devices()), (DATA_AXIS,))


def num_shards(mesh: Mesh) -> int:
    """How many slices the rows are cut into.

    Raises:
        InputError: the mesh has no `data` axis.
    """
    if DATA_AXIS not in mesh.shape:
        raise InputError(
            f"the mesh has axes {mesh.axis_names} but no 'data' axis to split examples over: build "
            "it with jaxinf.engine.data_mesh() or name one axis 'data'"
        )
    return mesh.shape[DATA_AXIS]


def data_parallel(
    fn: Callable[..., PyTree],
    mesh: Mesh,
    *,
    num_row_args: int = 1,
    via: Parallel = "shard_map",
    donate: Sequence[int] = (),
) -> Any:
    """Run one function on every device's slice of the rows, without any collective.

    Args:
        fn: `fn(state, *rows) -> outputs`, pure; `rows` are pytrees of one device's slices.
        mesh: has a `data` axis of size D. With `via="pmap"` it has no other axis.
        num_row_args: how many arguments follow `state`.
        via: `"shard_map"` (the default), or `"pmap"` for the same numbers by the older way.
        donate: positions of the arguments whose buffers may be reused for the outputs.

    Returns:
        A compiled-on-demand `parallel(state, *rows)` that can also be lowered: `state` is
        replicated, every leaf of `rows` and of the outputs has a leading axis D.

    Raises:
        InputError: the mesh does not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> mesh = data_mesh(jax.local_devices()[:1])
        >>> double = data_parallel(lambda state, x: state * x, mesh)
        >>> double(2.0, jnp.ones((1, 3))).tolist()
        [[2.0, 2.0, 2.0]]
    """
    num_shards(mesh)
    if via == "pmap":
        if mesh.axis_names != (DATA_AXIS,):
            raise InputError(f"pmap knows one axis, but the mesh has {mesh.axis_names}")
        return jax.pmap(
            fn,
            axis_name=DATA_AXIS,
            in_axes=(None,) + (0,) * num_row_args,
            devices=list(mesh.devices.flat),
            donate_argnums=tuple(donate),
        )
    if via != "shard_map":
        raise InputError(f"via must be 'shard_map' or 'pmap', not {via!r}")

    def one_shard(state: PyTree, *rows: PyTree) -> PyTree:
        outputs = fn(state, *jax.tree.map(lambda a: a[0], rows))
        return jax.tree.map(lambda a: a[None], outputs)

    # check_vma=True gives wrong per-example gradients: differentiation then sums the gradients
    # of replicated parameters over the devices
    sharded = jax.shard_map(
        one_shard,
        mesh=mesh,
        in_specs=(PartitionSpec(),) + (PartitionSpec(DATA_AXIS),) * num_row_args,
        out_specs=PartitionSpec(DATA_AXIS),
        axis_names={DATA_AXIS},
        check_vma=False,
    )
    return jax.jit(sharded, donate_argnums=tuple(donate))


def replicate(state: PyTree, mesh: Mesh) -> PyTree:
    """Copy a pytree to every device, leaving alone what already lies sharded on this mesh."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh == mesh:
            return leaf
        return jax.device_put(leaf, everywhere)

    return jax.tree.map(place, state)


def split_rows(batch: Batch, mesh: Mesh) -> Batch:
    """Put a batch on the devices: [B, ...] becomes [D, B / D, ...], one slice per device."""
    shards = num_shards(mesh)
    sharding = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    return jax.tree.map(
        lambda a: jax.device_put(a.reshape(shards, a.shape[0] // shards, *a.shape[1:]), sharding),
        batch,
    )


def merge_shards(scores: jax.Array) -> np.ndarray:
    """Fetch scores [D, K, B / D] from the devices as one host array [K, B]."""
    host = np.asarray(scores)
    return np.moveaxis(host, 0, 1).reshape(host.shape[1], -1)
