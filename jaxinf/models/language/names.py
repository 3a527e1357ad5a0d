"""Which tensor of a checkpoint is which parameter of `CausalLM`, and how it is cut."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jaxinf.models.language.config import LanguageConfig

Path = tuple[str, ...]
Cut = Callable[[np.ndarray], np.ndarray]

PREFIXES = {"gpt2": "transformer.", "gpt_neox": "gpt_neox.", "llama": "model."}
HEADS = {"gpt2": "lm_head.weight", "gpt_neox": "embed_out.weight", "llama": "lm_head.weight"}
# what checkpoints keep beside their parameters: causal masks and rotary wavelengths
BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
WAVELENGTHS = "rotary_emb.inv_freq"


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
        name: without the family's prefix.
        shape: as stored.
        parts: the parameters that are cut from it.
    """

    name: str
    shape: tuple[int, ...]
    parts: dict[Path, Cut]


def tensors(kind: str, config: LanguageConfig) -> list[Tensor]:
    """Every tensor that a checkpoint of a family must hold.

    Args:
        kind: `"gpt2"`, `"gpt_neox"` or `"llama"`.
        config: of the model.

    Example:
        >>> config = LanguageConfig(vocab_size=11, context=8, width=4, num_layers=1, num_heads=2)
        >>> [t.shape for t in tensors("gpt2", config) if t.name == "h.0.attn.c_attn.weight"]
        [(4, 12)]
    """
    blocks = {"gpt2": _gpt2_block, "gpt_neox": _gpt_neox_block, "llama": _llama_block}[kind]
    embed = {"gpt2": "wte", "gpt_neox": "embed_in", "llama": "embed_tokens"}[kind]
    last = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm", "llama": "norm"}[kind]
    shape = (config.vocab_size, config.width)
    found = [_whole(f"{embed}.weight", shape, ("tokens", "embedding"))]
    if config.rotary_dim is None:
        positions = (config.context, config.width)
        found.append(_whole("wpe.weight", positions, ("positions", "embedding")))
    for layer in range(config.num_layers):
        found += blocks(layer, config)
    found += _norm(last, config, ("norm",))
    if not config.tie_head:
        found.append(Tensor(HEADS[kind], shape, {("head", "kernel"): np.transpose}))
    return found


def _gpt2_block(layer: int, config: LanguageConfig) -> Iterator[Tensor]:
    stem, block, width = f"h.{layer}", f"block_{layer}", config.width
    yield from _norm(f"{stem}.ln_1", config, (block, "norm1"))
    thirds = {
        (block, "attention", name): lambda a, i=i: np.split(a, 3, axis=-1)[i]
        for i, name in enumerate("qkv")
    }
    # Conv1D keeps [in, out], as flax does
    for leaf, stored, shape in (
        ("kernel", "weight", (width, 3 * width)),
        ("bias", "bias", (3 * width,)),
    ):
        parts = {(*path, leaf): cut for path, cut in thirds.items()}
        yield Tensor(f"{stem}.attn.c_attn.{stored}", shape, parts)
    inner = config.size_of_mlp
    for name, path, sizes in (
        ("attn.c_proj", ("attention", "out"), (width, width)),
        ("mlp.c_fc", ("mlp", "up"), (width, inner)),
        ("mlp.c_proj", ("mlp", "down"), (inner, width)),
    ):
        yield _whole(f"{stem}.{name}.weight", sizes, (block, *path, "kernel"))
        yield _whole(f"{stem}.{name}.bias", sizes[1:], (block, *path, "bias"))
    yield from _norm(f"{stem}.ln_2", config, (block, "norm2"))


def _gpt_neox_block(layer: int, config: LanguageConfig) -> Iterator[Tensor]:
    stem, block, width = f"layers.{layer}", f"block_{layer}", config.width
    size, heads = config.size_of_head, config.num_heads
    yield from _norm(f"{stem}.input_layernorm", config, (block, "norm1"))
    yield from _norm(f"{stem}.post_attention_layernorm", config, (block, "norm2"))

    def of_heads(i: int) -> Cut:
        # the rows of each head are its query, its key, its value
        return lambda a: a.reshape(heads, 3, size, *a.shape[1:])[:, i].reshape(-1, *a.shape[1:])

    fused = f"{stem}.attention.query_key_value"
    cuts = [(name, of_heads(i)) for i, name in enumerate("qkv")]
    yield Tensor(
        f"{fused}.weight",
        (3 * heads * size, width),
        {(block, "attention", name, "kernel"): lambda a, c=cut: c(a).T for name, cut in cuts},
    )
    if config.qkv_bias:
        parts = {(block, "attention", name, "bias"): cut for name, cut in cuts}
        yield Tensor(f"{fused}.bias", (3 * heads * size,), parts)
    inner = config.size_of_mlp
    yield from _dense(
        f"{stem}.attention.dense", heads * size, width, config.out_bias, (block, "attention", "out")
    )
    up, down = (block, "mlp", "up"), (block, "mlp", "down")
    yield from _dense(f"{stem}.mlp.dense_h_to_4h", width, inner, config.mlp_bias, up)
    yield from _dense(f"{stem}.mlp.dense_4h_to_h", inner, width, config.mlp_bias, down)


def _llama_block(layer: int, config: LanguageConfig) -> Iterator[Tensor]:
    stem, block, width = f"layers.{layer}", f"block_{layer}", config.width
    size, inner = config.size_of_head, config.size_of_mlp
    yield from _norm(f"{stem}.input_layernorm", config, (block, "norm1"))
    yield from _norm(f"{stem}.post_attention_layernorm", config, (block, "norm2"))
    for name, heads in (("q", config.num_heads), ("k", config.kv_heads), ("v", config.kv_heads)):
        path = (block, "attention", name)
        whole = f"{stem}.self_attn.{name}_proj"
        yield from _dense(whole, width, heads * size, config.qkv_bias, path)
    out = (block, "attention", "out")
    yield from _dense(
        f"{stem}.self_attn.o_proj", config.num_heads * size, width, config.out_bias, out
    )
    for name, entering, leaving in (
        ("gate", width, inner),
        ("up", width, inner),
        ("down", inner, width),
    ):
        path = (block, "mlp", name)
        yield from _dense(f"{stem}.mlp.{name}_proj", entering, leaving, config.mlp_bias, path)


def _norm(name: str, config: LanguageConfig, path: Path) -> Iterator[Tensor]:
    yield _whole(f"{name}.weight", (config.width,), (*path, "norm", "scale"))
    if config.norm == "layer":
        yield _whole(f"{name}.bias", (config.width,), (*path, "norm", "bias"))


def _dense(name: str, entering: int, leaving: int, bias: bool, path: Path) -> Iterator[Tensor]:
    """A linear layer as PyTorch keeps it, [out, in]."""
    yield Tensor(f"{name}.weight", (leaving, entering), {(*path, "kernel"): np.transpose})
    if bias:
        yield _whole(f"{name}.bias", (leaving,), (*path, "bias"))


def _whole(name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    return Tensor(name, shape, {path: lambda a: a})
