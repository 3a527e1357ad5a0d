"""Loading of CLIP checkpoints from disk: OpenAI's, open_clip's and Hugging Face's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.errors import InputError
from jaxinf.models.clip import config_files, names, storage
from jaxinf.models.clip.architectures import architecture as named_architecture
from jaxinf.models.clip.architectures import openai_config, recognise
from jaxinf.models.clip.blocks import AttentionKernel
from jaxinf.models.clip.config import Activation, CLIPConfig
from jaxinf.models.clip.model import CLIP, TrainedCLIP
from jaxinf.models.clip.preprocess import Preprocess
from jaxinf.models.clip.preprocess import from_hugging_face as hugging_face_preprocess
from jaxinf.models.clip.preprocess import from_open_clip as open_clip_preprocess
from jaxinf.models.clip.tokenizer import Tokenizer
from jaxinf.models.clip.weights import few, variables_from_arrays


class Checkpoint(NamedTuple):
    """What a checkpoint says of how to use it.

    Attributes:
        model: `encode_image(images)` and `encode_text(tokens)`; a pytree.
        preprocess: pictures to images.
        tokenize: captions to tokens.
    """

    model: TrainedCLIP
    preprocess: Preprocess
    tokenize: Tokenizer


def load(
    path: str | Path,
    *,
    architecture: str | CLIPConfig | None = None,
    activation: Activation | None = None,
    dtype: Any = jnp.float32,
    kernel: AttentionKernel = None,
) -> Checkpoint:
    """Load a CLIP from disk; nothing is downloaded.

    Read are OpenAI's TorchScript archives, open_clip's .pt and .safetensors with
    open_clip_config.json, and Hugging Face's model.safetensors (sharded too) with config.json and
    preprocessor_config.json. .safetensors need no PyTorch. Activation, LayerNorm epsilon, pooling
    and image statistics come from the checkpoint's own config. A state dict without one does not
    say them: then `architecture` and `activation` are needed, and images are preprocessed as
    OpenAI's (change it by `dataclasses.replace(preprocess, mean=..., std=...)`).

    Args:
        path: a checkpoint file, or the folder that it lies in with its config.
        architecture: a name of `ARCHITECTURES`, or a `CLIPConfig`; for a state dict without a
            config only.
        activation: "quick_gelu", "gelu" or "gelu_tanh"; with the name of an architecture only.
        dtype: of the computation, float32 or bfloat16. Parameters and features are float32.
        kernel: of the attention: None is jax's own choice, "cudnn" the fused kernel of NVIDIA
            GPUs, for bfloat16; `fused_attention(dtype)` takes it where there is one.

    Returns:
        `(model, preprocess, tokenize)`.

    Raises:
        InputError: no such file; a file that is truncated or no CLIP's; weights that are missing,
            unexpected, of the wrong shape, or not finite; a config that asks for what is not
            built here; a state dict without config and `architecture` or `activation` not given,
            or given though the checkpoint says them.
        MissingExtraError: a library that the format needs is not installed.

    Example:
        >>> load("absent.pt")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent.pt: no such file or folder
    """
    file = storage.find_weights(path)
    stored = storage.read_arrays(file)
    kind = names.naming(stored.arrays)
    if kind is None:
        raise InputError(
            f"{file} holds no CLIP: neither visual.conv1.weight nor vision_model.* is among its "
            f"{len(stored.arrays)} arrays ({few(list(stored.arrays))})"
        )
    told = _openai(stored.arrays, file) if stored.scripted else _beside(file, kind)
    if told is None:
        told = _named(stored.arrays, file, architecture, activation)
    elif architecture is not None or activation is not None:
        raise InputError(
            f"{file} comes with its own config: leave out architecture= and activation="
        )
    config, prepare = told
    module = CLIP(config, dtype, kernel)
    variables = variables_from_arrays(module, stored.arrays, name=str(file))
    variables = jax.tree.map(jnp.asarray, variables)
    tokenize = Tokenizer(config.text.context_length, config.text.vocab_size)
    return Checkpoint(TrainedCLIP(variables, module), prepare, tokenize)


def _openai(arrays: Mapping[str, np.ndarray], file: Path) -> tuple[CLIPConfig, Preprocess]:
    """OpenAI's archives: only they are scripted, and their shapes tell the architecture."""
    try:
        config = openai_config(arrays)
    except (KeyError, IndexError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{file} is no archive of OpenAI's CLIP: {reason}") from error
    return config, _openai_preprocess(config)


def _beside(file: Path, kind: names.Naming) -> tuple[CLIPConfig, Preprocess] | None:
    """Architecture and preprocessing from the config in the file's folder; None without one."""
    if kind == "open_clip":
        path = file.parent / "open_clip_config.json"
        if not path.exists():
            return None
        content = storage.read_json(path)
        # the hub's files wrap the model's config, open_clip's own folder of configs does not
        config = config_files.from_open_clip(content.get("model_cfg", content), str(path))
        prepare = content.get("preprocess_cfg") or {}
        size = config.vision.image_size
        return config, open_clip_preprocess(prepare, size, str(path))
    path = file.parent / "config.json"
    if not path.exists():
        return None
    config = config_files.from_hugging_face(storage.read_json(path), str(path))
    return config, _hugging_face_preprocess(file.parent, config)


def _hugging_face_preprocess(folder: Path, config: CLIPConfig) -> Preprocess:
    size, path = config.vision.image_size, folder / "preprocessor_config.json"
    content: Mapping[str, Any] = {}
    if path.exists():
        content = storage.read_json(path)
    elif (folder / "processor_config.json").exists():
        path = folder / "processor_config.json"
        content = storage.read_json(path).get("image_processor", {})
    return hugging_face_preprocess(content, size, str(path))


def _named(
    arrays: Mapping[str, np.ndarray],
    file: Path,
    architecture: str | CLIPConfig | None,
    activation: Activation | None,
) -> tuple[CLIPConfig, Preprocess]:
    """A state dict without config: what the caller says it is."""
    if architecture is None:
        name = recognise(arrays)
        like = f"; its shapes are those of {name!r}" if name else ""
        raise InputError(
            f"{file} is a state dict without a config, which does not say its heads or its "
            f"activation: pass architecture= and activation={like}"
        )
    if isinstance(architecture, CLIPConfig):
        if activation is not None:
            raise InputError("a CLIPConfig says the activation itself: leave out activation=")
        return architecture, _openai_preprocess(architecture)
    if activation is None:
        raise InputError(
            f"{file} is a state dict without a config, which does not say its activation: pass "
            "activation='quick_gelu' (OpenAI, LAION-400M ViT-B-32) or 'gelu' (most later ones)"
        )
    config = named_architecture(architecture, activation)
    return config, _openai_preprocess(config)


def _openai_preprocess(config: CLIPConfig) -> Preprocess:
    size = config.vision.image_size
    return Preprocess(size=size, resize_to=size)
