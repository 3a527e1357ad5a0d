from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxinf.errors import InputError
from jaxinf.models.clip import fused_attention, load

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = (
    "vit_quick_gelu",
    "vit_gelu",
    "resnet",
    "hugging_face_end_token",
    "hugging_face_largest_id",
)


@pytest.fixture(scope="module")
def models():
    return {name: load(FIXTURES / name).model for name in NAMES}


def expected(name):
    with np.load(FIXTURES / name / "expected.npz") as file:
        return dict(file)


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def distance(features, reference):
    return np.linalg.norm(unit(features) - unit(reference), axis=1).max()


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_the_reference_libraries(models, name):
    stored = expected(name)
    with jax.default_matmul_precision("highest"):
        images = models[name].encode_image(stored["images"], normalise=False)
        texts = models[name].encode_text(stored["tokens"], normalise=False)
    for features, reference in (
        (images, stored["image_features"]),
        (texts, stored["text_features"]),
    ):
        assert features.dtype == jnp.float32
        assert distance(features, reference) < 2e-6
        np.testing.assert_allclose(
            np.linalg.norm(features, axis=1), np.linalg.norm(reference, axis=1), rtol=2e-6
        )


def test_bfloat16_is_near():
    stored = expected("vit_gelu")
    model = load(FIXTURES / "vit_gelu", dtype=jnp.bfloat16).model
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float32")}
    images, texts = model.encode_image(stored["images"]), model.encode_text(stored["tokens"])
    assert images.dtype == texts.dtype == jnp.float32
    assert 1e-4 < distance(images, stored["image_features"]) < 0.05
    assert 1e-4 < distance(texts, stored["text_features"]) < 0.05


def test_the_fused_kernel_is_taken_only_where_it_compiles(monkeypatch):
    assert fused_attention(jnp.bfloat16) is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert fused_attention(jnp.bfloat16) is None  # what it says is no GPU has no such kernel
    asked = []

    class Lowered:
        def lower(self, *shapes):
            asked.extend(shape.dtype for shape in shapes)
            return self

        def compile(self):
            return None

    monkeypatch.setattr(jax, "jit", lambda function: Lowered())
    assert fused_attention(jnp.bfloat16) == "cudnn"
    assert set(asked) == {jnp.dtype("bfloat16")}
    assert fused_attention(jnp.float32) is None


def test_a_resnet_in_bfloat16():
    stored = expected("resnet")
    features = load(FIXTURES / "resnet", dtype=jnp.bfloat16).model.encode_image(stored["images"])
    assert 1e-4 < distance(features, stored["image_features"]) < 0.05


def test_what_follows_the_end_token_does_not_matter(models):
    stored = expected("vit_gelu")
    features = models["vit_gelu"].encode_text(stored["tokens"][:2, :7])
    np.testing.assert_allclose(features, unit(stored["text_features"][:2]), atol=1e-5)


def test_the_model_is_a_pytree_that_shards_and_maps(models):
    stored = expected("vit_quick_gelu")
    model, images = models["vit_quick_gelu"], np.repeat(stored["images"], 8, axis=0)
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    copied = jax.device_put(model, NamedSharding(mesh, PartitionSpec()))
    features = copied.encode_image(spread)
    assert features.sharding.spec[0] == "data"
    assert distance(features, np.repeat(stored["image_features"], 8, axis=0)) < 1e-5

    @jax.jit
    def of_views(model, views):
        return jax.vmap(model.encode_image)(views)

    views = jnp.stack([stored["images"], stored["images"][::-1]])
    mapped = of_views(model, views)
    assert distance(mapped[1], stored["image_features"][::-1]) < 1e-5


def test_gradients_reach_every_parameter(models):
    model, stored = models["vit_quick_gelu"], expected("vit_quick_gelu")

    @jax.jit
    @jax.grad
    def gradients(params):
        variables = {**model.variables, "params": params}
        logits = model.module.apply(variables, stored["images"], stored["tokens"])
        return -jnp.trace(jax.nn.log_softmax(logits))

    for leaf in jax.tree.leaves(gradients(model.variables["params"])):
        assert np.isfinite(leaf).all()
        assert np.any(leaf != 0)


def test_training_moves_the_statistics_of_a_resnet(models):
    model, stored = models["resnet"], expected("resnet")

    @jax.jit
    def train(variables, images):
        encode = {"method": "encode_image", "train": True, "mutable": ["batch_stats"]}
        return model.module.apply(variables, images, **encode)

    _, moved = train(model.variables, stored["images"])
    before = model.variables["batch_stats"]["visual"]["bn1"]["mean"]
    assert np.abs(moved["batch_stats"]["visual"]["bn1"]["mean"] - before).max() > 1e-3


def test_bad_inputs(models):
    model = models["vit_quick_gelu"]
    with pytest.raises(InputError, match=r"images have shape .* pass float\[B, 16, 16, 3\]"):
        model.encode_image(jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(InputError, match="images are uint8: pass what `preprocess` returns"):
        model.encode_image(jnp.zeros((1, 16, 16, 3), jnp.uint8))
    with pytest.raises(InputError, match="13 tokens, but the context length is 12"):
        model.encode_text(jnp.zeros((1, 13), jnp.int32))
    with pytest.raises(InputError, match=r"tokens are float32\[1, 12\]: pass int\[B, T\]"):
        model.encode_text(jnp.zeros((1, 12)))
    assert np.isnan(model.encode_text(jnp.full((1, 4), 99))).all()


@pytest.mark.parametrize(("activation", "end_token"), [("quick_gelu", 90), ("gelu_new", 2)])
def test_live_parity_with_transformers(tmp_path, activation, end_token):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tower = {
        "hidden_act": activation,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 64,
    }
    config = transformers.CLIPConfig(
        projection_dim=16,
        text_config={
            **tower,
            "vocab_size": 99,
            "max_position_embeddings": 12,
            "bos_token_id": 0,
            "eos_token_id": end_token,
        },
        vision_config={**tower, "image_size": 24, "patch_size": 8},
    )
    torch.manual_seed(0)
    theirs = transformers.CLIPModel(config).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    # in two shards with an index
    theirs.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ours = load(tmp_path).model
    stored = expected("hugging_face_end_token")
    pixels = torch.from_numpy(stored["images"]).permute(0, 3, 1, 2)
    with torch.no_grad():
        outputs = (
            theirs.get_image_features(pixel_values=pixels),
            theirs.get_text_features(input_ids=torch.from_numpy(stored["tokens"]).long()),
        )
    images, texts = (getattr(output, "pooler_output", output).numpy() for output in outputs)
    with jax.default_matmul_precision("highest"):
        assert distance(ours.encode_image(stored["images"]), images) < 2e-6
        assert distance(ours.encode_text(stored["tokens"]), texts) < 2e-6
