"""Pretrained weights with PyTorch's names and layouts, from arrays or from an .npz file."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinf.errors import InputError, check_finite
from jaxinf.models.resnet import CifarResNet
from jaxinf.typing import PyTree

# flax leaf -> PyTorch leaf; a "kernel" is a transposed "weight"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def load_cifar_resnet(path: str | Path) -> tuple[CifarResNet, dict[str, PyTree]]:
    """Load a CIFAR ResNet from an .npz of PyTorch weights, such as akamaster's.

    Depth and number of classes are read off the file. The networks of
    akamaster/pytorch_resnet_cifar10 expect pixels in 0..1, normalised by the means
    (0.485, 0.456, 0.406) and the standard deviations (0.229, 0.224, 0.225).

    Args:
        path: .npz of arrays named and laid out as in that repository (`layer1.0.conv1.weight`
            [O, I, 3, 3], ..., `linear.weight` [C, 64]), with or without a leading `module.`.

    Returns:
        The module and its variables `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
        InputError: no such file, no .npz, pickled objects inside, or arrays that are missing,
            unexpected, of the wrong shape, or not finite.

    Example:
        >>> load_cifar_resnet("absent.npz")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent.npz: no such file
    """
    arrays = _strip(_read_npz(path))
    blocks = sum(name.startswith("layer1.") and name.endswith(".conv1.weight") for name in arrays)
    if not blocks or arrays.get("linear.weight", np.empty(0)).ndim != 2:
        raise InputError(
            f"{path} holds no CIFAR ResNet: layer1.0.conv1.weight or linear.weight [C, 64] is "
            f"not among its {len(arrays)} arrays"
        )
    module = CifarResNet(depth=6 * blocks + 2, num_classes=arrays["linear.weight"].shape[0])
    return module, variables_from_torch(module, arrays, (32, 32, 3), name=str(path))


def variables_from_torch(
    module: nn.Module,
    state_dict: Mapping[str, Any],
    input_shape: tuple[int, ...],
    *,
    name: str = "state_dict",
) -> dict[str, PyTree]:
    """Turn a PyTorch state dict into flax variables, for modules that share its names.

    A flax path such as `layer1_0/conv1/kernel` is looked up as `layer1.0.conv1.weight` (the
    networks of `jaxinf.models.resnet` are named so). Convolutions are transposed from OIHW to
    HWIO, dense layers from [out, in] to [in, out]; `num_batches_tracked` is skipped.

    Args:
        module: the flax module.
        state_dict: PyTorch names to arrays (numpy, or tensors on the CPU).
        input_shape: shape of one input, without the batch axis: (H, W, c) for images.
        name: what to call `state_dict` in messages.

    Returns:
        `{"params": ..., "batch_stats": ...}`, float32.

    Raises:
        InputError: arrays that are missing, unexpected, of the wrong shape, or not finite.

    Example:
        >>> from jaxinf.models.mlp import MLP
        >>> weights = {"linear.weight": np.ones((2, 3)), "linear.bias": np.zeros(2)}
        >>> variables_from_torch(MLP((), 2), weights, (3,))["params"]["linear"]["kernel"].shape
        (3, 2)
    """
    arrays = _strip(state_dict)
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    expected: dict[tuple[str, ...], Any] = flatten_dict(
        jax.eval_shape(module.init, jax.random.key(0), x)
    )
    names = {path: _torch_name(path) for path in expected}
    found, wrong = {}, []
    for path, leaf in expected.items():
        if names[path] not in arrays:
            continue
        array = np.asarray(arrays[names[path]], np.float32)
        found[path] = array.transpose(_axes(array.ndim)) if path[-1] == "kernel" else array
        if found[path].shape != leaf.shape:
            want = tuple(leaf.shape[i] for i in np.argsort(_axes(leaf.ndim)))
            want = want if path[-1] == "kernel" else leaf.shape
            wrong.append(f"{names[path]} is {array.shape}, not {want}")
    problems = {
        "missing": sorted(set(names.values()) - set(arrays)),
        "unexpected": sorted(set(arrays) - set(names.values())),
        "wrong shape": wrong,
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_few(items)}" for what, items in problems.items() if items)
        raise InputError(f"{name} does not fit {type(module).__name__}: {listed}")
    check_finite({names[path]: array for path, array in found.items()}, name)
    return unflatten_dict({path: jnp.asarray(array) for path, array in found.items()})


def _torch_name(path: tuple[str, ...]) -> str:
    *modules, leaf = path[1:]
    dotted = []
    for module in modules:
        head, _, index = module.rpartition("_")
        dotted.append(f"{head}.{index}" if head and index.isdigit() else module)
    return ".".join([*dotted, _LEAVES.get(leaf, leaf)])


def _axes(ndim: int) -> tuple[int, ...]:
    """Transposition of a PyTorch weight [out, in, *window] to flax's [*window, in, out]."""
    return (*range(2, ndim), 1, 0) if ndim >= 2 else tuple(range(ndim))


def _strip(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    # DataParallel puts "module." before every name
    return {
        name.removeprefix("module."): array
        for name, array in state_dict.items()
        if not name.endswith("num_batches_tracked")
    }


def _few(items: list[str], shown: int = 3) -> str:
    rest = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _read_npz(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz of plain arrays ({error})") from error
