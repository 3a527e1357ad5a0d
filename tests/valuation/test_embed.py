import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models import MLP, PreActResNet18, save_variables
from jaxinf.valuation.embed import embed, hidden_layer, preact_resnet18

ROWS = 53
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype(np.float32)
W = RNG.normal(size=(5, 7)).astype(np.float32)


def features(w, batch):
    return jnp.tanh(batch["x"] @ w)


WANTED = np.tanh(X @ W)


def as_dict(tmp_path):
    return {"x": X}


def as_list(tmp_path):
    return [{"x": row} for row in X]


def as_memmap(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return {"x": np.load(tmp_path / "x.npy", mmap_mode="r")}


def as_hugging_face(tmp_path):
    import datasets

    kind = datasets.Features(x=datasets.Sequence(datasets.Value("float32"), length=5))
    return datasets.Dataset.from_dict({"x": X}, features=kind)


def as_grain(tmp_path):
    import grain

    return grain.MapDataset.source(as_list(tmp_path))


def as_batches(tmp_path):
    return ({"x": X[start : start + 10]} for start in range(0, ROWS, 10))


@pytest.mark.parametrize(
    "make", [as_dict, as_list, as_memmap, as_hugging_face, as_grain, as_batches]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_source_and_every_batch_size_gives_the_same_features(make, tmp_path):
    for batch_size in (1, 16, 300):
        found = embed(features, W, make(tmp_path), batch_size=batch_size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, WANTED, rtol=1e-5, atol=1e-6)


def test_trailing_axes_are_flattened_in_order():
    factors = np.float32([[[1, 10]]])
    found = embed(lambda w, batch: batch[:, :, None] * w, factors, X)
    np.testing.assert_array_equal(found, (X[:, :, None] * factors).reshape(ROWS, 10))


def test_a_cache_is_read_again_and_nothing_is_computed(tmp_path):
    first = embed(features, W, {"x": X}, batch_size=8, cache=tmp_path / "kept")
    np.testing.assert_array_equal(first, embed(features, W, {"x": X}, batch_size=8))
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").rglob("*")}
    again = embed(features, W, {"x": X}, batch_size=8, cache=tmp_path / "kept")
    np.testing.assert_array_equal(first, again)
    assert written == {file: file.stat().st_mtime_ns for file in (tmp_path / "kept").rglob("*")}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"params": W + 1}, "params"),
        ({"x": X + 1}, "rows"),
        ({"fn": lambda w, batch: jnp.sin(batch["x"] @ w)}, "program"),
    ],
)
def test_a_stale_cache_is_refused(tmp_path, changed, named):
    embed(features, W, {"x": X}, batch_size=8, cache=tmp_path / "kept")
    given = {"fn": features, "params": W, "x": X} | changed
    with pytest.raises(InputError, match=f"belongs to another run: it has other {named}"):
        embed(
            given["fn"], given["params"], {"x": given["x"]}, batch_size=8, cache=tmp_path / "kept"
        )


KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp, numpy as np
from jaxinf.engine.store import ScoreStore
from jaxinf.valuation.embed import embed

write, left = ScoreStore.write_chunk, [2]

def write_and_die(self, start, scores):
    write(self, start, scores)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

ScoreStore.write_chunk = write_and_die
x = np.load(sys.argv[1])
embed(lambda w, batch: batch * w, np.float32(3), x, batch_size=8, cache=sys.argv[2])
"""


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    x = RNG.normal(size=(300, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "x.npy", tmp_path / "kept"],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    chunks = tmp_path / "kept" / "scores" / "c" / "0"
    before = {file.name: file.stat().st_mtime_ns for file in chunks.iterdir()}
    assert len(before) == 2
    found = embed(
        lambda w, batch: batch * w, np.float32(3), x, batch_size=8, cache=tmp_path / "kept"
    )
    np.testing.assert_array_equal(found, x * 3)
    after = {file.name: file.stat().st_mtime_ns for file in chunks.iterdir()}
    assert before.items() < after.items()


def test_hidden_layer_scales_stored_bytes_on_the_device():
    model = MLP((6,), num_classes=3)
    x = RNG.integers(0, 256, (9, 4, 4, 3), np.uint8)
    mean, std = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.3, 0.4])
    scaled = ((x / 255 - mean) / std).astype(np.float32)
    variables = model.init(jax.random.key(0), scaled)
    wanted = model.apply(variables, scaled, method="features")
    fn = hidden_layer(model, mean=mean, std=std)
    np.testing.assert_allclose(embed(fn, variables, {"x": x}), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        embed(hidden_layer(model), variables, scaled), wanted, rtol=1e-4, atol=1e-4
    )


def test_preact_resnet18_from_saved_weights(tmp_path):
    model = PreActResNet18(width=4)
    x = RNG.uniform(size=(10, 8, 8, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
    save_variables(tmp_path / "weights", variables)
    found = embed(preact_resnet18(width=4), variables, {"x": x}, batch_size=8)
    assert found.shape == (10, 32)
    wanted = jax.jit(lambda v, x: model.apply(v, x, method="features"))(variables, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"source": {"x": np.full((3, 5), np.nan, np.float32)}}, r"source\['x'\] holds 15 NaN"),
        ({"source": {"x": X[:0]}}, "source is empty"),
        ({"source": {"x": X.astype(np.float64)}}, "is float64 but jax's x64 flag is off"),
        ({"source": iter([])}, "source holds no batches"),
        ({"params": W * np.float32(np.nan)}, "params holds 35 NaN"),
        ({"source": {"z": X}}, r"cannot be run on one row of source \('x'\)"),
        ({"params": W[:2]}, "cannot be run on one row of source"),
        ({"feature_fn": lambda w, batch: jnp.sum(batch["x"])}, r"shape \[\]: \[1, d\] is needed"),
        ({"feature_fn": lambda w, batch: jnp.log(batch["x"] - 99)}, "features holds 265 NaN"),
    ],
)
def test_bad_input(options, message):
    given = {"feature_fn": features, "params": W, "source": {"x": X}} | options
    with pytest.raises(InputError, match=message):
        embed(**given)


def test_a_cache_of_an_iterable_is_refused(tmp_path):
    with pytest.raises(InputError, match="cache cannot tell one iterable"):
        embed(features, W, as_batches(tmp_path), cache=tmp_path / "kept")


def test_a_module_without_the_method_is_refused():
    with pytest.raises(InputError, match="MLP has no method 'embedding'"):
        hidden_layer(MLP((4,)), method="embedding")
    with pytest.raises(InputError, match="std must be positive"):
        hidden_layer(MLP((4,)), std=0)


def test_clip_features_are_those_of_its_own_preprocessing():
    pytest.importorskip("safetensors")
    from jaxinf.models import clip
    from jaxinf.valuation import clip_images

    folder = Path(__file__).parents[1] / "models" / "clip" / "fixtures" / "vit_gelu"
    model, preprocess, _ = clip.load(folder)
    images = np.random.default_rng(0).integers(0, 256, (5, 23, 31, 3), dtype=np.uint8)
    found = embed(clip_images(preprocess), model, {"x": images}, batch_size=2)
    wanted = model.encode_image(preprocess(list(images)))
    np.testing.assert_allclose(found, wanted, atol=2e-6)
