"""Checkpoint files: which one in a folder to read, and its arrays."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxinf.errors import InputError, require_extra
from jaxinf.models.clip.names import clean

# what needs no PyTorch first
_PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "*.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "*.bin",
    "*.pt",
    "*.pth",
)


class Stored(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
        arrays: cleaned names to arrays, as stored.
        scripted: whether it is a TorchScript archive, as OpenAI's are.
    """

    arrays: dict[str, np.ndarray]
    scripted: bool


def find_weights(path: str | Path) -> Path:
    """The file with the weights: `path` itself, or the one in the folder `path`.

    Of several, .safetensors before PyTorch's own formats, and the usual names before others.

    Raises:
        InputError: nothing is there, or it is not clear which file is meant.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    for pattern in _PREFERRED:
        found = sorted(path.glob(pattern))
        if len(found) > 1:
            listed = ", ".join(file.name for file in found)
            raise InputError(f"{path} holds several checkpoints ({listed}): pass one of them")
        if found:
            return found[0]
    raise InputError(f"{path} holds no checkpoint: no .safetensors, .bin, .pt or .pth file")


def read_arrays(path: Path) -> Stored:
    """Read every array of a checkpoint file; .safetensors need no PyTorch.

    Args:
        path: a .safetensors file, the .index.json of a sharded one, a TorchScript archive, or
            what `torch.save` wrote: a state dict, or a dict with one under "state_dict".

    Raises:
        InputError: the file is truncated or none of these.
        MissingExtraError: `safetensors` or PyTorch is needed and not installed.
    """
    if path.name.endswith(".index.json"):
        shards = sorted(set(read_json(path).get("weight_map", {}).values()))
        parts = [_read_safetensors(path.parent / shard) for shard in shards]
        return Stored({clean(key): value for part in parts for key, value in part.items()}, False)
    if path.suffix == ".safetensors":
        arrays = _read_safetensors(path)
        return Stored({clean(key): value for key, value in arrays.items()}, False)
    scripted = _is_scripted(path)
    return Stored(dict(_read_torch(path, scripted)), scripted)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON file ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object")
    return content


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    library = require_extra("safetensors.numpy", "clip")
    try:
        return library.load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; it is a shard that the index names") from error
    except (require_extra("safetensors", "clip").SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or no safetensors file ({error})") from error


def _is_scripted(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with the compiled code in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _load_scripted(torch: Any, path: Path) -> Any:
    with warnings.catch_warnings():
        # PyTorch deprecates what made OpenAI's archives; they will not change
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        return torch.jit.load(path, map_location="cpu").state_dict()


def _read_torch(path: Path, scripted: bool) -> Iterator[tuple[str, np.ndarray]]:
    torch = require_extra("torch", "torch")
    try:
        if scripted:
            content: Any = _load_scripted(torch, path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path} is truncated or no PyTorch checkpoint ({reason})") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no state dict")
    for key, value in tensors.items():
        # numpy has no bfloat16
        value = value.float() if value.is_floating_point() else value
        yield clean(str(key)), value.detach().numpy()
