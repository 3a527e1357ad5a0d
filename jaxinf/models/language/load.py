"""Hugging Face folders into Flax: config.json and safetensors, never a pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxinf.errors import InputError, check_finite, require_extra
from jaxinf.models.clip.storage import read_json
from jaxinf.models.language.config import LanguageConfig
from jaxinf.models.language.families import read_config
from jaxinf.models.language.model import CausalLM
from jaxinf.models.language.names import BUFFERS, HEADS, PREFIXES, WAVELENGTHS, tensors
from jaxinf.typing import PyTree


class LoadedLM(NamedTuple):
    """A language model from disk.

    Attributes:
        module: applied as `module.apply({"params": params}, tokens)` -> logits.
        params: its parameters.
        config: what it is made of.
        end: id of the end-of-text token that config.json names, or None.
        begin: id of the token that a text begins with; where config.json names none, `end`.
    """

    module: CausalLM
    params: PyTree
    config: LanguageConfig
    end: int | None
    begin: int | None


def load_causal_lm(folder: str | Path, *, dtype: Any = jnp.float32) -> LoadedLM:
    """Load a GPT-2, GPT-NeoX (Pythia) or Llama checkpoint from a Hugging Face folder.

    Args:
        folder: with config.json, and model.safetensors or the shards that
            model.safetensors.index.json names.
        dtype: of the parameters, and so of the computation.

    Returns:
        `(module, params, config, end, begin)`. Logits are those of the transformers library, to
        1e-5 in float32 with `jax.default_matmul_precision("highest")`.

    Raises:
        InputError: no such folder; an unknown model_type or a setting that is not supported;
            pickled weights only; tensors that are missing, unexpected, of another shape, or not
            finite.
        MissingExtraError: `safetensors` is not installed.

    Example:
        >>> load_causal_lm("absent")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent: no such folder
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not (path / "config.json").is_file():
        raise InputError(f"{folder} has no config.json: pass a checkpoint's folder")
    settings = read_json(path / "config.json")
    config = read_config(settings, str(path / "config.json"))
    arrays = _read_folder(path)
    params = arrange(settings["model_type"], config, arrays, dtype, str(folder))
    end, begin = (_first(settings.get(f"{name}_token_id")) for name in ("eos", "bos"))
    return LoadedLM(CausalLM(config), params, config, end, end if begin is None else begin)


def arrange(
    kind: str,
    config: LanguageConfig,
    arrays: Mapping[str, np.ndarray],
    dtype: Any = jnp.float32,
    where: str = "the checkpoint",
) -> PyTree:
    """Put a family's tensors where `CausalLM` has its parameters.

    Args:
        kind: the family, `"gpt2"`, `"gpt_neox"` or `"llama"`.
        config: of the model.
        arrays: Hugging Face names to arrays.
        dtype: of the parameters.
        where: what to call the arrays in messages.

    Raises:
        InputError: as `load_causal_lm`.
    """
    prefix = PREFIXES[kind]
    held = {name.removeprefix(prefix): array for name, array in arrays.items()}
    wanted = {tensor.name: tensor for tensor in tensors(kind, config)}
    ignored = {name for name in held if name.endswith(BUFFERS) or name.endswith(WAVELENGTHS)}
    if config.tie_head:
        ignored.add(HEADS[kind])
    wrong = [
        f"{name} is {list(held[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in held and held[name].shape != tensor.shape
    ]
    problems = {
        "missing": sorted(set(wanted) - set(held)),
        "unexpected": sorted(set(held) - set(wanted) - ignored),
        "wrong shape": wrong,
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_few(items)}" for what, items in problems.items() if items)
        raise InputError(f"{where} does not fit its config ({kind}): {listed}")
    check_finite({name: held[name] for name in wanted}, where)
    placed = {
        path: jnp.asarray(cut(held[tensor.name]), dtype)
        for tensor in wanted.values()
        for path, cut in tensor.parts.items()
    }
    return unflatten_dict(placed)


def _read_folder(path: Path) -> dict[str, np.ndarray]:
    index = path / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(read_json(index).get("weight_map", {}).values()))
        if any(Path(file).name != file for file in files):
            raise InputError(f"{index} names files outside its folder")
    else:
        files = ["model.safetensors"] if (path / "model.safetensors").is_file() else []
    if not files:
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt"))
        reason = "only pickled weights, which can run code: save it as" if pickled else "no"
        raise InputError(f"{path} holds {reason} model.safetensors")
    found: dict[str, np.ndarray] = {}
    for file in files:
        found |= _read_safetensors(path / file)
    return found


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    library = require_extra("safetensors.numpy", "language")
    try:
        return library.load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; it is a shard that the index names") from error
    except (require_extra("safetensors", "language").SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or no safetensors file ({error})") from error


def _first(ids: int | list[int] | None) -> int | None:
    """Some models have several tokens that end a text."""
    return next(iter(ids), None) if isinstance(ids, list) else ids


def _few(items: list[str], shown: int = 3) -> str:
    rest = len(items) - shown
    return ", ".join(items[:shown]) + (f" and {rest} more" if rest > 0 else "")
