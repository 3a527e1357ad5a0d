"""What a CLIP's parameters are called in the checkpoints of OpenAI, open_clip and Hugging Face.

Modules are named after open_clip's, with dots as underscores, so that one short table remains:
the one for Hugging Face's names.
"""

import re
from collections.abc import Iterable
from typing import Literal, TypeAlias

Naming: TypeAlias = Literal["open_clip", "hugging_face"]
"""OpenAI's names are open_clip's."""

# flax leaf -> PyTorch leaf; a "kernel" is a transposed "weight"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "embedding": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
# whole names and prefixes first, then what is inside a block
_HUGGING_FACE = (
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"\.ln_1\.", ".layer_norm1."),
    (r"\.ln_2\.", ".layer_norm2."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
# buffers that hold no weight
_BUFFERS = re.compile(
    r"(.*\.)?(num_batches_tracked|position_ids|attn_mask)"
    r"|input_resolution|context_length|vocab_size"
)


def naming(names: Iterable[str]) -> Naming | None:
    """Whose names these are; None if they are no CLIP's."""
    names = set(names)
    if any(name.startswith("vision_model.") for name in names):
        return "hugging_face"
    return "open_clip" if "visual.conv1.weight" in names else None


def clean(name: str) -> str:
    """A name without what wrappers put before it: data parallelism, compilation, `text.`.

    Example:
        >>> clean("module.visual.proj"), clean("text.ln_final.bias")
        ('visual.proj', 'ln_final.bias')
    """
    for prefix in ("module.", "_orig_mod."):
        name = name.removeprefix(prefix)
    # open_clip's CustomTextCLIP keeps the text tower in a module of its own
    return name.removeprefix("text.")


def is_buffer(name: str) -> bool:
    """Whether a cleaned name is that of something other than a weight."""
    return _BUFFERS.fullmatch(name) is not None


def open_clip_name(path: tuple[str, ...]) -> str:
    """open_clip's name of a variable.

    Args:
        path: keys from the collection down to the leaf.

    Example:
        >>> open_clip_name(("params", "text", "transformer", "resblocks_3", "ln_1", "scale"))
        'transformer.resblocks.3.ln_1.weight'
        >>> open_clip_name(("params", "visual", "layer1_0", "downsample_0", "kernel"))
        'visual.layer1.0.downsample.0.weight'
    """
    *modules, leaf = path[2:] if path[1] == "text" else path[1:]
    modules = [re.sub(r"^(resblocks|layer\d|downsample)_(\d+)$", r"\1.\2", m) for m in modules]
    name = ".".join([*modules, _LEAVES.get(leaf, leaf)])
    return name.replace(".in_proj.", ".in_proj_")


def hugging_face_names(name: str) -> tuple[str, ...]:
    """Hugging Face's names of what open_clip calls `name`: one, or queries, keys and values.

    Example:
        >>> hugging_face_names("visual.transformer.resblocks.0.attn.in_proj_bias")[1]
        'vision_model.encoder.layers.0.self_attn.k_proj.bias'
    """
    for pattern, replacement in _HUGGING_FACE:
        name = re.sub(pattern, replacement, name)
    packed = re.fullmatch(r"(.*)\.attn\.in_proj_(\w+)", name)
    if packed:
        return tuple(f"{packed[1]}.self_attn.{part}_proj.{packed[2]}" for part in "qkv")
    return (name,)


def hugging_face_transposed(name: str) -> bool:
    """Whether open_clip stores this as [in, out] and Hugging Face as [out, in]."""
    return name in ("visual.proj", "text_projection")
