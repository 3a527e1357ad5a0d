"""Decoder-only language models: one Flax module for GPT-2, GPT-NeoX and Llama, and tokenizers."""

from jaxinf.models.language.config import LanguageConfig, RotaryScaling
from jaxinf.models.language.load import LoadedLM, load_causal_lm
from jaxinf.models.language.model import CausalLM
from jaxinf.models.language.tokenizer import (
    TextTokenizer,
    check_tokenizer,
    load_tokenizer,
    train_bpe,
)

__all__ = [
    "CausalLM",
    "LanguageConfig",
    "LoadedLM",
    "RotaryScaling",
    "TextTokenizer",
    "check_tokenizer",
    "load_causal_lm",
    "load_tokenizer",
    "train_bpe",
]
