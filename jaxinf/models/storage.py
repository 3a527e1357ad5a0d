"""Pytrees of arrays on disk, through orbax."""

from pathlib import Path

import jax
import numpy as np

from jaxinf.errors import InputError
from jaxinf.typing import PyTree


def save_variables(path: str | Path, variables: PyTree) -> None:
    """Save a pytree of arrays as an orbax checkpoint; it appears whole or not at all.

    Arrays are stored as host arrays: the checkpoint loads on any number and kind of devices.

    Args:
        path: folder to create.
        variables: pytree of arrays, such as `{"params": ..., "batch_stats": ...}`.

    Raises:
        InputError: the folder exists, or there is something else than numeric arrays to save.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights"
        >>> save_variables(path, {"w": np.ones(3, np.float32)})
        >>> load_variables(path)
        {'w': array([1., 1., 1.], dtype=float32)}
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    if path.exists():
        raise InputError(f"{path} exists: remove it, or choose another folder")
    arrays = jax.tree.map(np.asarray, jax.device_get(variables))
    leaves = jax.tree.leaves(arrays)
    if not leaves or any(leaf.dtype.kind in "OUSMm" for leaf in leaves):
        raise InputError(f"nothing saved to {path}: a pytree of numeric arrays is needed")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, arrays)


def load_variables(path: str | Path, like: PyTree = None) -> PyTree:
    """Load what `save_variables` saved, as numpy arrays.

    Args:
        path: the folder.
        like: pytree of arrays (or of `jax.ShapeDtypeStruct`) whose structure the result shall
            have. Without it, tuples come back as lists, and other nodes as dicts of their fields.

    Returns:
        The pytree.

    Raises:
        InputError: no checkpoint there, or not with the leaves, shapes and dtypes of `like`.

    Example:
        >>> load_variables("absent")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent: no orbax checkpoint there
    """
    import orbax.checkpoint as ocp

    try:
        with ocp.StandardCheckpointer() as checkpointer:
            loaded = checkpointer.restore(Path(path).absolute())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no orbax checkpoint there") from error
    return loaded if like is None else arrange(loaded, like, path)


def arrange(loaded: PyTree, like: PyTree, path: str | Path) -> PyTree:
    """Put loaded arrays into the structure of `like`; `path` is named in messages.

    Raises:
        InputError: leaves, shapes or dtypes differ.
    """
    # By hand, since orbax cuts or pads an array whose shape differs from its target's.
    found = _named_leaves(loaded)
    wanted = _named_leaves(like)
    for name, leaf in wanted.items():
        if name not in found:
            raise InputError(f"{path} has no {name}: it belongs to another model")
        have, want = found[name], np.dtype(leaf.dtype)
        if have.shape != leaf.shape or have.dtype != want:
            raise InputError(
                f"{path}: {name} is {have.dtype}{list(have.shape)}, not {want}{list(leaf.shape)}"
            )
    if unexpected := sorted(set(found) - set(wanted)):
        raise InputError(f"{path} holds {unexpected[0]}, which is not expected")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def _named_leaves(tree: PyTree) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
