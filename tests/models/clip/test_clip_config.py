import jax
import pytest

from jaxinf.errors import InputError
from jaxinf.models.clip import ARCHITECTURES, CLIP, TransformerConfig, architecture
from jaxinf.models.clip.architectures import recognise
from jaxinf.models.clip.config_files import from_hugging_face, from_open_clip
from jaxinf.models.clip.names import (
    clean,
    hugging_face_names,
    is_buffer,
    naming,
    open_clip_name,
)
from jaxinf.models.clip.weights import _expected, _stored_shape

VIT = {"embed_dim": 512, "vision_cfg": {"patch_size": 32}, "text_cfg": {}}


def shapes_of(name):
    expected = _expected(CLIP(architecture(name, "gelu")))
    return {
        open_clip_name(path): jax.ShapeDtypeStruct(_stored_shape(path, leaf.shape, False), "f4")
        for path, leaf in expected.items()
    }


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50"])
def test_shapes_tell_the_published_architectures(name):
    shapes = shapes_of(name)
    assert recognise(shapes) == name
    shapes["token_embedding.weight"] = jax.ShapeDtypeStruct((100, 512), "f4")
    assert recognise(shapes) is None
    del shapes["token_embedding.weight"]
    assert recognise(shapes) is None


@pytest.mark.parametrize(
    ("written", "name"), [("ViT-L/14@336px", "ViT-L-14-336"), ("RN50", "RN50")]
)
def test_openai_spelling(written, name):
    assert architecture(written, "gelu") == architecture(name, "gelu")


def test_every_name_is_an_architecture():
    for name in ARCHITECTURES:
        config = architecture(name, "quick_gelu")
        assert config.text.transformer.width == config.text.transformer.heads * 64


def test_open_clip_defaults_and_activations():
    assert from_open_clip(VIT, "c") == architecture("ViT-B-32", "gelu")
    assert from_open_clip({**VIT, "quick_gelu": True}, "c") == architecture(
        "ViT-B-32", "quick_gelu"
    )
    tanh = {"patch_size": 32, "act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-6}}
    config = from_open_clip({**VIT, "vision_cfg": tanh}, "c")
    assert config.vision.transformer.activation == "gelu_tanh"
    assert config.vision.transformer.eps == 1e-6
    assert config.text.transformer.activation == "gelu"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"vision_cfg": {"pool_type": "avg"}}, "vision_cfg.pool_type is 'avg', which is not"),
        ({"vision_cfg": {"something_new": 3}}, "vision_cfg.something_new is 3, which is not"),
        ({"vision_cfg": {"image_size": [224, 448]}}, r"image_size is \[224, 448\]: only squares"),
        ({"vision_cfg": None}, "is no open_clip config"),
        ({"text_cfg": {"hf_tokenizer_name": "t5"}}, "text_cfg.hf_tokenizer_name is 't5'"),
        ({"text_cfg": {"no_causal_mask": True}}, "text_cfg.no_causal_mask is True"),
        ({"init_logit_bias": -10}, "init_logit_bias is -10"),
    ],
)
def test_open_clip_configs_that_are_refused(entry, message):
    with pytest.raises(InputError, match=message):
        from_open_clip({**VIT, **entry}, "c.json")


def test_idle_entries_of_open_clip_are_no_obstacle():
    idle = {"patch_size": 32, "timm_pool": "avg", "attn_pooler_heads": 8, "pool_type": "tok"}
    assert from_open_clip({**VIT, "vision_cfg": idle}, "c") == from_open_clip(VIT, "c")


def test_hugging_face_defaults():
    config = from_hugging_face({"model_type": "clip", "text_config_dict": None}, "c")
    named = architecture("ViT-B-32", "quick_gelu")
    assert (config.vision, config.embed_dim) == (named.vision, 512)
    assert config.text.end_token == 49407
    old = {"model_type": "clip", "text_config": {"eos_token_id": 2}}
    assert from_hugging_face(old, "c") == named
    older = {**old, "text_config_dict": {"hidden_act": "gelu"}}
    assert from_hugging_face(older, "c").text.transformer.activation == "gelu"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"vision_config": {"hidden_act": "relu"}}, "hidden_act 'relu' is not supported"),
        ({"text_config": {"eos_token_id": [1, 2]}}, r"eos_token_id is \[1, 2\]: only one token"),
        ({"vision_config": {"patch_size": [8, 16]}}, r"patch_size is \[8, 16\]: only squares"),
    ],
)
def test_hugging_face_configs_that_are_refused(entry, message):
    with pytest.raises(InputError, match=message):
        from_hugging_face({"model_type": "clip", **entry}, "c.json")


def test_towers_are_checked():
    tower = {"width": 30, "layers": 1, "heads": 4, "mlp_width": 8}
    with pytest.raises(InputError, match="width 30 is no multiple of heads 4"):
        TransformerConfig(**tower, activation="gelu")
    with pytest.raises(InputError, match="activation is 'relu': it must be one of quick_gelu"):
        TransformerConfig(**{**tower, "width": 32}, activation="relu")


def test_names():
    assert naming(["vision_model.post_layernorm.bias"]) == "hugging_face"
    assert naming(["visual.conv1.weight"]) == "open_clip"
    assert naming(["conv1.weight"]) is None
    assert clean("module._orig_mod.text.ln_final.weight") == "ln_final.weight"
    assert is_buffer("visual.bn1.num_batches_tracked")
    assert not is_buffer("visual.context_length.weight")
    assert hugging_face_names("positional_embedding") == (
        "text_model.embeddings.position_embedding.weight",
    )
