"""What a checkpoint's config.json says of its model: GPT-2, GPT-NeoX (Pythia) and Llama."""

from collections.abc import Mapping
from typing import Any

from jaxinf.errors import InputError
from jaxinf.models.language.config import LanguageConfig, RotaryScaling

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def read_config(settings: Mapping[str, Any], where: str = "config.json") -> LanguageConfig:
    """Translate a Hugging Face config.

    Args:
        settings: what config.json holds.
        where: what to call it in messages.

    Returns:
        A `LanguageConfig`.

    Raises:
        InputError: an unknown model_type, a setting that is not there, or one that this
            transformer does not have.

    Example:
        >>> read_config({"model_type": "rwkv"})
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: config.json: model_type 'rwkv' is unknown: gpt2, ...
    """
    kind = settings.get("model_type")
    if kind not in FAMILIES:
        raise InputError(
            f"{where}: model_type {kind!r} is unknown: {', '.join(FAMILIES)} can be loaded"
        )
    if settings.get("quantization_config"):
        raise InputError(f"{where}: the weights are quantized: load a checkpoint that is not")
    try:
        return FAMILIES[kind](settings, where)
    except KeyError as error:
        raise InputError(f"{where} has no {error.args[0]}, which {kind} needs") from error


def _gpt2(settings: Mapping[str, Any], where: str) -> LanguageConfig:
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if settings.get(name):
            raise InputError(f"{where}: {name} is set, which is not supported")
    if not settings.get("scale_attn_weights", True):
        raise InputError(f"{where}: scale_attn_weights is off, which is not supported")
    return LanguageConfig(
        vocab_size=settings["vocab_size"],
        context=settings["n_positions"],
        width=settings["n_embd"],
        num_layers=settings["n_layer"],
        num_heads=settings["n_head"],
        mlp_width=settings.get("n_inner"),
        activation=_activation(settings.get("activation_function", "gelu_new"), where),
        eps=settings.get("layer_norm_epsilon", 1e-5),
        tie_head=settings.get("tie_word_embeddings", True),
    )


def _gpt_neox(settings: Mapping[str, Any], where: str) -> LanguageConfig:
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    rotary = _rotary(settings, where)
    share = settings.get("rotary_pct", settings.get("partial_rotary_factor"))
    share = rotary["given"].get("partial_rotary_factor", 0.25 if share is None else share)
    bias = settings.get("attention_bias", True)
    return LanguageConfig(
        vocab_size=settings["vocab_size"],
        context=settings["max_position_embeddings"],
        width=width,
        num_layers=settings["num_hidden_layers"],
        num_heads=heads,
        mlp_width=settings["intermediate_size"],
        activation=_activation(settings.get("hidden_act", "gelu"), where),
        eps=settings.get("layer_norm_eps", 1e-5),
        rotary_dim=int(width // heads * share),
        rotary_base=rotary["base"],
        rotary_scaling=rotary["scaling"],
        parallel=settings.get("use_parallel_residual", True),
        qkv_bias=bias,
        out_bias=bias,
        tie_head=settings.get("tie_word_embeddings", False),
    )


def _llama(settings: Mapping[str, Any], where: str) -> LanguageConfig:
    heads = settings["num_attention_heads"]
    rotary = _rotary(settings, where)
    size = settings.get("head_dim") or settings["hidden_size"] // heads
    bias = settings.get("attention_bias", False)
    return LanguageConfig(
        vocab_size=settings["vocab_size"],
        context=settings["max_position_embeddings"],
        width=settings["hidden_size"],
        num_layers=settings["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=settings.get("num_key_value_heads"),
        head_dim=size,
        mlp_width=settings["intermediate_size"],
        activation=_activation(settings.get("hidden_act", "silu"), where),
        gated=True,
        norm="rms",
        eps=settings.get("rms_norm_eps", 1e-6),
        rotary_dim=size,
        rotary_base=rotary["base"],
        rotary_scaling=rotary["scaling"],
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=settings.get("mlp_bias", False),
        tie_head=settings.get("tie_word_embeddings", False),
    )


FAMILIES = {"gpt2": _gpt2, "gpt_neox": _gpt_neox, "llama": _llama}


def _activation(name: str, where: str) -> Any:
    if name not in _ACTIVATIONS:
        raise InputError(f"{where}: activation {name!r} is unknown: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _rotary(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Base and scaling, wherever the library's versions have put them."""
    given = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    base = given.get("rope_theta", settings.get("rope_theta"))
    base = settings.get("rotary_emb_base", 10_000.0) if base is None else base
    kind = given.get("rope_type", given.get("type", "default"))
    scaling = None
    if kind == "linear":
        scaling = RotaryScaling("linear", given["factor"])
    elif kind == "llama3":
        scaling = RotaryScaling(
            "llama3",
            given["factor"],
            given["low_freq_factor"],
            given["high_freq_factor"],
            given["original_max_position_embeddings"],
        )
    elif kind != "default":
        raise InputError(
            f"{where}: rotary scaling {kind!r} is not supported: default, linear, llama3"
        )
    return {"base": float(base), "scaling": scaling, "given": given}
