"""From a checkpoint's arrays to a CLIP's variables, every array accounted for."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinf.errors import InputError, check_finite
from jaxinf.models.clip import names
from jaxinf.models.clip.model import CLIP
from jaxinf.typing import PyTree


def variables_from_arrays(
    module: CLIP, arrays: Mapping[str, np.ndarray], *, name: str = "the checkpoint"
) -> dict[str, PyTree]:
    """Turn a checkpoint's arrays, laid out as PyTorch does, into flax variables.

    Args:
        module: the CLIP whose variables they are.
        arrays: cleaned names (`names.clean`) to arrays of any floating-point type; OpenAI's,
            open_clip's or Hugging Face's.
        name: what to call the checkpoint in messages.

    Returns:
        `{"params": ...}`, with "batch_stats" for a ResNet, float32, on the host.

    Raises:
        InputError: arrays that are missing, unexpected, of the wrong shape, or not finite; names
            the first few of each, as the checkpoint calls them, and counts the rest.
    """
    hugging_face = names.naming(arrays) == "hugging_face"
    expected = _expected(module)
    sources = {path: _sources(path, hugging_face) for path in expected}
    wanted = [source for path in expected for source in sources[path]]
    wrong, found = [], {}
    for path, leaf in expected.items():
        if any(source not in arrays for source in sources[path]):
            continue
        parts = [np.asarray(arrays[source], np.float32) for source in sources[path]]
        shape = _stored_shape(path, leaf.shape, hugging_face)
        shape = (shape[0] // len(parts), *shape[1:]) if shape else shape
        bad = [i for i, part in enumerate(parts) if part.shape != shape]
        wrong += [f"{sources[path][i]} is {parts[i].shape}, not {shape}" for i in bad]
        if not bad:
            whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
            found[path] = whole.transpose(_axes(path, whole.ndim, hugging_face))
    used = set(wanted)
    problems = {
        "missing": [source for source in wanted if source not in arrays],
        "unexpected": [key for key in arrays if key not in used and not names.is_buffer(key)],
        "wrong shape": wrong,
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {few(items)}" for what, items in problems.items() if items)
        raise InputError(f"{name} does not fit the architecture: {listed}")
    check_finite({sources[path][0]: array for path, array in found.items()}, name)
    return unflatten_dict(found)


def few(items: Sequence[str], shown: int = 3) -> str:
    """The first few, and how many more there are."""
    rest = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _expected(module: CLIP) -> dict[tuple[str, ...], Any]:
    """Path of every variable to its shape; nothing is computed."""
    side = module.config.vision.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return flatten_dict(jax.eval_shape(module.init, jax.random.key(0), images, tokens))


def _sources(path: tuple[str, ...], hugging_face: bool) -> tuple[str, ...]:
    name = names.open_clip_name(path)
    return names.hugging_face_names(name) if hugging_face else (name,)


def _axes(path: tuple[str, ...], ndim: int, hugging_face: bool) -> tuple[int, ...]:
    """Transposition from PyTorch's layout: [out, in, *window] to flax's [*window, in, out]."""
    name = names.open_clip_name(path)
    if path[-1] == "kernel" or (hugging_face and names.hugging_face_transposed(name)):
        return (*range(2, ndim), 1, 0)
    return tuple(range(ndim))


def _stored_shape(
    path: tuple[str, ...], shape: tuple[int, ...], hugging_face: bool
) -> tuple[int, ...]:
    back = np.argsort(_axes(path, len(shape), hugging_face))
    return tuple(shape[axis] for axis in back)
