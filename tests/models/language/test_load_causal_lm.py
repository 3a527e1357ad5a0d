import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models.language import load_causal_lm

sys.path.insert(0, str(Path(__file__).parent))
from hugging_face import FIXTURES, TOKENS, build

KINDS = ("gpt2", "gpt_neox", "llama")


def logits_of(folder):
    loaded = load_causal_lm(folder)
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(loaded.module.apply)({"params": loaded.params}, TOKENS))


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_reference_library(kind):
    expected = np.load(FIXTURES / kind / "logits.npy")
    assert relative(logits_of(FIXTURES / kind), expected) < 1e-5


VARIANTS = {
    "gpt2 untied, relu": ("gpt2", {"tie_word_embeddings": False, "activation_function": "relu"}),
    "gpt2, hidden layer of its own width": ("gpt2", {"n_inner": 20}),
    "gpt_neox in sequence": ("gpt_neox", {"use_parallel_residual": False}),
    "gpt_neox, all rotated, no bias": ("gpt_neox", {"rotary_pct": 1.0, "attention_bias": False}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama, one answering head, its own head size": (
        "llama",
        {"num_key_value_heads": 1, "head_dim": 6},
    ),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, linear scaling": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    ),
    "llama 3.1 scaling": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
                "rope_theta": 100.0,
            },
            "max_position_embeddings": 128,
            "head_dim": 8,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, *VARIANTS])
def test_logits_are_those_of_transformers_live(name, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    kind, changes = VARIANTS.get(name, (name, {}))
    expected = build(kind, tmp_path, **changes)
    assert relative(logits_of(tmp_path), expected) < 1e-5


@pytest.mark.slow
def test_shards_and_half_precision_load(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    expected = build("llama", tmp_path / "shards", shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert relative(logits_of(tmp_path / "shards"), expected) < 1e-5
    rough = build("llama", tmp_path / "half", dtype="bfloat16")
    assert relative(logits_of(tmp_path / "half"), rough) < 0.05


@pytest.fixture
def copy(tmp_path):
    """A changeable copy of the GPT-2 fixture: `(folder, settings, arrays, write)`."""
    from safetensors.numpy import load_file, save_file

    settings = json.loads((FIXTURES / "gpt2" / "config.json").read_text())
    arrays = load_file(FIXTURES / "gpt2" / "model.safetensors")

    def write():
        (tmp_path / "config.json").write_text(json.dumps(settings))
        save_file(arrays, tmp_path / "model.safetensors")
        return tmp_path

    return tmp_path, settings, arrays, write


def test_original_names_without_prefix_load(copy):
    _, _, arrays, write = copy
    for name in list(arrays):
        arrays[name.removeprefix("transformer.")] = arrays.pop(name)
    arrays["h.0.attn.bias"] = np.ones((1, 1, 12, 12), np.float32)  # a mask that OpenAI's file has
    expected = np.load(FIXTURES / "gpt2" / "logits.npy")
    assert relative(logits_of(write()), expected) < 1e-5


def test_tensors_that_do_not_fit_are_named(copy):
    _, _, arrays, write = copy
    arrays.pop("transformer.h.1.mlp.c_fc.bias")
    arrays["transformer.h.7.ln_1.weight"] = np.ones(16, np.float32)
    arrays["transformer.wpe.weight"] = np.ones((9, 16), np.float32)
    message = (
        r"missing: h\.1\.mlp\.c_fc\.bias; unexpected: h\.7\.ln_1\.weight; "
        r"wrong shape: wpe\.weight is \[9, 16\], not \[12, 16\]"
    )
    with pytest.raises(InputError, match=message):
        load_causal_lm(write())


def test_weights_that_are_not_finite_are_refused(copy):
    _, _, arrays, write = copy
    arrays["transformer.ln_f.bias"] = np.full(16, np.nan, np.float32)
    with pytest.raises(InputError, match="holds 16 NaN"):
        load_causal_lm(write())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "rwkv"}, "model_type 'rwkv' is unknown: gpt2, gpt_neox, llama"),
        ({"activation_function": "mish"}, "activation 'mish' is unknown"),
        ({"scale_attn_by_inverse_layer_idx": True}, "not supported"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"n_head": 3}, "width 16 is no multiple of num_heads 3"),
        ({"n_embd": None}, "width is None"),
    ],
)
def test_configs_that_cannot_be_loaded_are_refused(copy, change, message):
    _, settings, _, write = copy
    settings |= change
    with pytest.raises(InputError, match=message):
        load_causal_lm(write())


def test_a_setting_that_is_missing_is_named(copy):
    _, settings, _, write = copy
    settings.pop("n_layer")
    with pytest.raises(InputError, match="has no n_layer, which gpt2 needs"):
        load_causal_lm(write())


def test_other_rotary_scaling_is_refused(tmp_path):
    settings = json.loads((FIXTURES / "llama" / "config.json").read_text())
    settings["rope_parameters"] = {"rope_type": "yarn", "factor": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="rotary scaling 'yarn' is not supported"):
        load_causal_lm(tmp_path)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "config.json").write_text((FIXTURES / "gpt2" / "config.json").read_text())
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        load_causal_lm(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(InputError, match="only pickled weights"):
        load_causal_lm(tmp_path)


def test_damaged_files_are_refused(copy):
    folder, _, _, write = copy
    write()
    (folder / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(InputError, match="truncated or no safetensors"):
        load_causal_lm(folder)
    index = {"weight_map": {"a": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="outside its folder"):
        load_causal_lm(folder)
    index = {"weight_map": {"a": "gone.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="a shard that the index names"):
        load_causal_lm(folder)
