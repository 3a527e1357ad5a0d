"""The published architectures by name, and the architecture that a state dict's shapes tell."""

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

# embed_dim, image_size, patch_size, (width, layers, heads, mlp_width), text (width, layers, heads)
_VISION_TRANSFORMERS = {
    "ViT-B-32": (512, 224, 32, (768, 12, 12, 3072), (512, 12, 8)),
    "ViT-B-16": (512, 224, 16, (768, 12, 12, 3072), (512, 12, 8)),
    "ViT-L-14": (768, 224, 14, (1024, 24, 16, 4096), (768, 12, 12)),
    "ViT-L-14-336": (768, 336, 14, (1024, 24, 16, 4096), (768, 12, 12)),
    "ViT-H-14": (1024, 224, 14, (1280, 32, 16, 5120), (1024, 24, 16)),
    "ViT-g-14": (1024, 224, 14, (1408, 40, 16, 6144), (1024, 24, 16)),
    "ViT-bigG-14": (1280, 224, 14, (1664, 48, 16, 8192), (1280, 32, 20)),
}
# embed_dim, image_size, blocks, width, heads, text (width, layers, heads)
_RESNETS = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, 32, (512, 12, 8)),
    "RN101": (512, 224, (3, 4, 23, 3), 64, 32, (512, 12, 8)),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, 40, (640, 12, 10)),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, 48, (768, 12, 12)),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, 64, (1024, 12, 16)),
}
ARCHITECTURES: tuple[str, ...] = (*_VISION_TRANSFORMERS, *_RESNETS)
"""Names that `architecture` knows."""


def architecture(name: str, activation: Activation) -> CLIPConfig:
    """A published architecture; `"ViT-B/32"` and `"ViT-B-32"` are the same one.

    Args:
        name: one of `ARCHITECTURES`.
        activation: of both transformers. It is no part of the name: OpenAI's weights and
            LAION-400M's ViT-B-32 were trained with "quick_gelu", most later ones with "gelu".

    Raises:
        InputError: for a name or an activation that is not known.

    Example:
        >>> architecture("RN50", "quick_gelu").vision.blocks
        (3, 4, 6, 3)
    """
    key = name.replace("/", "-").replace("@", "-").removesuffix("px")
    if key in _VISION_TRANSFORMERS:
        embed_dim, image_size, patch_size, vision, text = _VISION_TRANSFORMERS[key]
        width, layers, heads, mlp_width = vision
        tower: VisionTransformerConfig | ResNetConfig = VisionTransformerConfig(
            image_size=image_size,
            patch_size=patch_size,
            transformer=_blocks(width, layers, heads, activation, mlp_width),
        )
    elif key in _RESNETS:
        embed_dim, image_size, blocks, width, heads, text = _RESNETS[key]
        tower = ResNetConfig(image_size=image_size, blocks=blocks, width=width, heads=heads)
    else:
        raise InputError(
            f"architecture {name!r} is not known: choose among {', '.join(ARCHITECTURES)}, or "
            "pass a CLIPConfig"
        )
    return CLIPConfig(
        embed_dim=embed_dim,
        vision=tower,
        text=TextConfig(
            context_length=77, vocab_size=49408, transformer=_blocks(*text, activation)
        ),
    )


def recognise(arrays: Mapping[str, Any]) -> str | None:
    """Name of the published architecture that has a state dict's shapes; None if there is none.

    Args:
        arrays: names to arrays, in OpenAI's and open_clip's naming.
    """
    try:
        told = _shapes(openai_config(arrays))
    except (KeyError, IndexError, ValueError):
        return None
    named = {name: _shapes(architecture(name, "quick_gelu")) for name in ARCHITECTURES}
    return next((name for name in named if named[name] == told), None)


def openai_config(arrays: Mapping[str, Any]) -> CLIPConfig:
    """Architecture of a state dict of OpenAI's own, as their code reads it off the shapes.

    That the activation is QuickGELU and each head has 64 channels is known of OpenAI's archives,
    and of nobody else's: use this for those alone.

    Args:
        arrays: names to arrays.

    Raises:
        KeyError: something that every CLIP has is not there.
        IndexError, ValueError: something that every CLIP has is of another rank.
        InputError: the widths are none of OpenAI's.

    Reference: openai/CLIP, `clip/model.py`, `build_model`.
    """
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    text_width = shapes["ln_final.weight"][0]
    text = _blocks(text_width, _count(shapes, "transformer.resblocks."), text_width // 64)
    return CLIPConfig(
        embed_dim=shapes["text_projection"][1],
        vision=_vision(shapes),
        text=TextConfig(
            context_length=shapes["positional_embedding"][0],
            vocab_size=shapes["token_embedding.weight"][0],
            transformer=text,
        ),
    )


def _vision(shapes: Mapping[str, tuple[int, ...]]) -> VisionTransformerConfig | ResNetConfig:
    if "visual.proj" in shapes:
        width, _, _, patch_size = shapes["visual.conv1.weight"]
        side = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
        return VisionTransformerConfig(
            image_size=side * patch_size,
            patch_size=patch_size,
            transformer=_blocks(
                width,
                _count(shapes, "visual.transformer.resblocks."),
                width // 64,
                mlp_width=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
            ),
        )
    width = shapes["visual.layer1.0.conv1.weight"][0]
    side = round((shapes["visual.attnpool.positional_embedding"][0] - 1) ** 0.5)
    first, second, third, last = (_count(shapes, f"visual.layer{stage}.") for stage in range(1, 5))
    return ResNetConfig(
        image_size=side * 32,
        blocks=(first, second, third, last),
        width=width,
        heads=width * 32 // 64,
    )


def _blocks(
    width: int,
    layers: int,
    heads: int,
    activation: Activation = "quick_gelu",
    mlp_width: int | None = None,
) -> TransformerConfig:
    if heads < 1:
        raise InputError(f"a width of {width} has no head of 64 channels")
    return TransformerConfig(
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=mlp_width or 4 * width,
        activation=activation,
    )


def _count(shapes: Mapping[str, Any], prefix: str) -> int:
    """How many numbered blocks there are under a prefix."""
    under = [name.removeprefix(prefix) for name in shapes if name.startswith(prefix)]
    return len({name.partition(".")[0] for name in under})


def _shapes(config: CLIPConfig) -> tuple[Any, ...]:
    """What shapes can tell of an architecture: everything but its heads and activation."""
    vision, text = config.vision, config.text.transformer
    if isinstance(vision, ResNetConfig):
        tower: tuple[Any, ...] = (vision.image_size, vision.blocks, vision.width)
    else:
        stack = vision.transformer
        tower = (vision.image_size, vision.patch_size, stack.width, stack.layers, stack.mlp_width)
    context = (config.text.context_length, config.text.vocab_size)
    return (config.embed_dim, tower, *context, text.width, text.layers)
