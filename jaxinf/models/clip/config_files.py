"""Architecture and preprocessing from the JSON files that lie beside a checkpoint's weights."""

from collections.abc import Mapping
from typing import Any

from jaxinf.errors import InputError
from jaxinf.models.clip.config import (
    Activation,
    CLIPConfig,
    ResNetConfig,
    TextConfig,
    TransformerConfig,
    VisionTransformerConfig,
)

_HUGGING_FACE_ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# open_clip's keys that are read here, or that change nothing in the features
_VISION_KEYS = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
_TEXT_KEYS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_SHARED_KEYS = {"act_kwargs", "norm_kwargs", "patch_dropout"}
# keys whose only understood values are the usual ones
_USUAL = {
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "proj_type": ("linear",),
    "block_type": ("default",),
}
# read only where another key, refused here, switches them on
_IDLE = {"attn_pooler_queries", "attn_pooler_heads", "pad_id", "eos_id"}
_IDLE_PREFIXES = ("timm_", "hf_")
_SWITCHES = ("timm_model_name", "hf_model_name", "hf_tokenizer_name")


def from_open_clip(model: Mapping[str, Any], name: str) -> CLIPConfig:
    """Architecture from open_clip's JSON: one of its model configs.

    Args:
        model: the object with `embed_dim`, `vision_cfg` and `text_cfg`.
        name: what to call it in messages.

    Raises:
        InputError: an entry is missing, or asks for what is not built here (timm towers, Hugging
            Face text towers, other poolings).
    """
    if not isinstance(model.get("vision_cfg"), Mapping) or "embed_dim" not in model:
        raise InputError(f"{name} is no open_clip config: no embed_dim or no vision_cfg")
    vision, text = model["vision_cfg"], model.get("text_cfg") or {}
    _refuse_unknown(vision, _VISION_KEYS, f"{name}: vision_cfg")
    _refuse_unknown(text, _TEXT_KEYS, f"{name}: text_cfg")
    for key in ("init_logit_bias", "multimodal_cfg"):
        if model.get(key):
            raise InputError(f"{name}: {key} is {model[key]!r}, which is not supported")
    activation: Activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    width = text.get("width", 512)
    return CLIPConfig(
        embed_dim=model["embed_dim"],
        vision=_open_clip_vision(vision, activation, f"{name}: vision_cfg"),
        text=TextConfig(
            context_length=text.get("context_length", 77),
            vocab_size=text.get("vocab_size", 49408),
            transformer=_open_clip_blocks(text, width, text.get("heads", 8), activation),
        ),
    )


def from_hugging_face(config: Mapping[str, Any], name: str) -> CLIPConfig:
    """Architecture from Hugging Face's config.json; what it leaves out has the library's default.

    Args:
        config: the object with `text_config` and `vision_config`.
        name: what to call it in messages.

    Raises:
        InputError: it is no CLIP's, or asks for what is not built here.
    """
    if config.get("model_type") != "clip":
        raise InputError(f"{name} is no CLIP's: model_type is {config.get('model_type')!r}")
    # the older "..._dict" entries win, as in transformers
    vision = {**(config.get("vision_config") or {}), **(config.get("vision_config_dict") or {})}
    text = {**(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
    end_token = text.get("eos_token_id", 49407)
    if not isinstance(end_token, int):
        raise InputError(f"{name}: eos_token_id is {end_token!r}: only one token is supported")
    return CLIPConfig(
        embed_dim=config.get("projection_dim", 512),
        vision=VisionTransformerConfig(
            image_size=_square(vision.get("image_size", 224), f"{name}: image_size"),
            patch_size=_square(vision.get("patch_size", 32), f"{name}: patch_size"),
            transformer=_hugging_face_blocks(vision, (768, 12, 12, 3072), name),
        ),
        text=TextConfig(
            context_length=text.get("max_position_embeddings", 77),
            vocab_size=text.get("vocab_size", 49408),
            transformer=_hugging_face_blocks(text, (512, 12, 8, 2048), name),
            # configs older than the fix of the end token all say 2, and mean the largest id
            end_token=None if end_token == 2 else end_token,
        ),
    )


def _open_clip_vision(
    vision: Mapping[str, Any], activation: Activation, name: str
) -> VisionTransformerConfig | ResNetConfig:
    image_size = _square(vision.get("image_size", 224), f"{name}.image_size")
    layers, width = vision.get("layers", 12), vision.get("width", 768)
    head_width = vision.get("head_width", 64)
    if isinstance(layers, list | tuple):
        first, second, third, last = layers
        heads = width * 32 // head_width
        blocks = (first, second, third, last)
        return ResNetConfig(image_size=image_size, blocks=blocks, width=width, heads=heads)
    return VisionTransformerConfig(
        image_size=image_size,
        patch_size=_square(vision.get("patch_size", 16), f"{name}.patch_size"),
        transformer=_open_clip_blocks(vision, width, width // head_width, activation),
    )


def _open_clip_blocks(
    tower: Mapping[str, Any], width: int, heads: int, activation: Activation
) -> TransformerConfig:
    # open_clip passes act_kwargs to the exact GELU alone
    tanh = (tower.get("act_kwargs") or {}).get("approximate") == "tanh"
    return TransformerConfig(
        width=width,
        layers=tower.get("layers", 12),
        heads=heads,
        mlp_width=int(width * tower.get("mlp_ratio", 4.0)),
        activation="gelu_tanh" if tanh and activation == "gelu" else activation,
        eps=(tower.get("norm_kwargs") or {}).get("eps", 1e-5),
    )


def _hugging_face_blocks(
    tower: Mapping[str, Any], defaults: tuple[int, int, int, int], name: str
) -> TransformerConfig:
    width, layers, heads, mlp_width = defaults
    activation = tower.get("hidden_act", "quick_gelu")
    if activation not in _HUGGING_FACE_ACTIVATIONS:
        raise InputError(f"{name}: hidden_act {activation!r} is not supported")
    return TransformerConfig(
        width=tower.get("hidden_size", width),
        layers=tower.get("num_hidden_layers", layers),
        heads=tower.get("num_attention_heads", heads),
        mlp_width=tower.get("intermediate_size", mlp_width),
        activation=_HUGGING_FACE_ACTIVATIONS[activation],
        eps=tower.get("layer_norm_eps", 1e-5),
    )


def _refuse_unknown(tower: Mapping[str, Any], known: set[str], name: str) -> None:
    """Refuse every entry that would change the features and is not read here."""
    for key, value in tower.items():
        if key in known | _SHARED_KEYS or not value or value in _USUAL.get(key, ()):
            continue
        idle = key in _IDLE or key.startswith(_IDLE_PREFIXES)
        if not idle or key in _SWITCHES:
            raise InputError(f"{name}.{key} is {value!r}, which is not supported")


def _square(size: Any, name: str) -> int:
    sides = list(size) if isinstance(size, list | tuple) else [size]
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise InputError(f"{name} is {size!r}: only squares are supported")
    return sides[0]
