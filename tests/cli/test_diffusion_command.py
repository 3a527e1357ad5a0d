"""`jaxinf diffusion`: our checkpoint and files, a contract, a resumed run, and refusals."""

import shutil

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxinf.cli.diffusion_inputs import from_files
from jaxinf.models.diffusion import EDM, init_params, load_edm, sample, save_edm

CONTRACT = """
import jax, jax.numpy as jnp, numpy as np
from jaxinf.applications.diffusion import denoising_loss, draw_noise

def error(w, x, noise, sigma, labels):
    return jnp.mean((w * (x + sigma[:, None, None, None] * noise) - x) ** 2, axis=(1, 2, 3))

def influence():
    x = np.random.default_rng(0).uniform(-1, 1, (12, 4, 4, 1)).astype(np.float32)
    images = lambda x: {"x": x, "y": np.zeros(len(x), np.int32)}
    loss = denoising_loss(error, draw_noise(jax.random.key(0), 2, (4, 4, 1)))
    return {"loss_fn": loss, "params": np.float32(0.5) * np.ones(()).astype(np.float32),
            "queries": images(x[3:5, :SIDE]), "train": images(x)}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints after and before a tuning, training images and two generated ones, as files."""
    folder = tmp_path_factory.mktemp("diffusion")
    model = EDM((4, 4, 1), num_classes=2, widths=(8,))
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    draw = lambda leaf: 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
    params = jax.tree.map(draw, shapes)
    save_edm(folder / "before", model, jax.tree.map(lambda p: 0.8 * p, params))
    x = rng.integers(0, 256, (9, 4, 4), dtype=np.uint8)
    y = (np.arange(9) % 2).astype(np.int32)
    np.savez(folder / "train.npz", x_train=x, y_train=y)
    made = x[2:4].astype(np.float32)[..., None] / 127.5 - 1
    np.savez(folder / "made.npz", x=made, y=y[2:4])
    return save_edm(folder / "model", model, params), folder / "train.npz", folder / "made.npz"


def before(files):
    """The folder of the weights from before the tuning."""
    return files[0].parent / "before"


def scores_of(out):
    """Scores [K, N] that a run wrote."""
    table = pq.read_table(out / "scores.parquet")
    return np.stack([np.asarray(table[f"query_{k}"]) for k in range(2)])


@pytest.mark.slow
def test_a_checkpoint_and_files_give_scores_and_a_report_with_pictures(call, files, tmp_path):
    out, store = tmp_path / "out", tmp_path / "store"
    given = ("diffusion", *files, "--method", "grad-cos", "--draws", 2, "--no-progress",
             "--out", out, "--store", store)  # fmt: skip
    result = call(*given)
    assert result.exit_code == 0, result.output
    table = pq.read_table(out / "scores.parquet")
    assert table.column_names == ["train_index", "query_0", "query_1"]
    scores = [np.asarray(table[f"query_{k}"]) for k in range(2)]
    # the generated images are training images 2 and 3: their own cosine is 1
    assert [int(row.argmax()) for row in scores] == [2, 3]
    np.testing.assert_allclose([row.max() for row in scores], 1, rtol=1e-4)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") >= 2 * 6
    assert "How far the first ones stand out" in page
    assert "What the contrast is with" not in page
    again = call(*given)
    assert "compiled in 0.0 s" in again.stdout


@pytest.mark.slow
def test_the_fall_of_the_loss_since_before_the_tuning(call, files, tmp_path):
    given = ("--draws", 2, "--p-mean", -2.4, "--no-progress", "--no-report", "--out", tmp_path)
    result = call("diffusion", *files, *given, "--method", "loss-fall", "--before", before(files))
    assert result.exit_code == 0, result.output
    contract = from_files(*files, size=None, draws=2, seed=0, p_mean=-2.4)
    loss, train = jax.jit(contract.loss_fn), contract.train
    was, now = (np.asarray(loss(load_edm(f)[1], train)) for f in (before(files), files[0]))
    want = np.tile((was - now) / was, (2, 1))
    np.testing.assert_allclose(scores_of(tmp_path), want, rtol=1e-3, atol=1e-6)


def test_the_mean_of_the_noise_levels(files, refused, tmp_path):
    losses = [
        jax.jit(found.loss_fn)(found.params, found.train)
        for mean in (None, -1.2, -2.4)
        for found in [from_files(*files, size=None, draws=2, seed=0, p_mean=mean)]
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.allclose(losses[0], losses[2], rtol=0.01)
    assert "p_mean is nan" in refused("diffusion", *files, "--p-mean", "nan")
    file = tmp_path / "mine.py"
    file.write_text(CONTRACT.replace("SIDE", "4"))
    assert "leave --p-mean out" in refused("diffusion", file, "--p-mean", -2.4)


def test_a_fall_needs_the_same_model_from_before(files, refused, tmp_path):
    fall = ("diffusion", *files, "--method", "loss-fall")
    assert "loss-fall needs --before" in refused(*fall)
    assert "leave steps out" in refused(*fall, "--before", before(files), "--steps", 2)
    assert "no edm.json" in refused(*fall, "--before", tmp_path)
    shutil.copytree(before(files), tmp_path / "wider")
    settings = tmp_path / "wider" / "edm.json"
    settings.write_text(settings.read_text().replace("0.5", "0.4"))
    assert "are different models" in refused(*fall, "--before", tmp_path / "wider")


@pytest.mark.slow
def test_with_before_the_scores_are_a_contrast(call, files, tmp_path):
    given = ("diffusion", *files, "--draws", 2, "--no-progress", "--method", "grad-dot")
    result = call(*given, "--before", before(files), "--noise-seed", 5, "--out", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "contrast" in result.stdout
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert page.count("Before the tuning") == 2  # beside each generated image
    model, params = load_edm(before(files))
    with np.load(files[2]) as held:
        labels = held["y"]
    plain = sample(model, params, labels, jax.random.key(5))
    np.savez(tmp_path / "plain.npz", x=plain, y=labels)
    rows = []
    for name, made in (("made", files[2]), ("plain", tmp_path / "plain.npz")):
        line = ("diffusion", files[0], files[1], made, *given[4:], "--out", tmp_path / name)
        assert call(*line).exit_code == 0
        rows.append(scores_of(tmp_path / name))
    np.testing.assert_allclose(scores_of(tmp_path / "a"), rows[0] - rows[1], rtol=1e-3, atol=1e-5)


def test_a_contract_brings_a_model_of_ones_own(call, refused, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(CONTRACT.replace("SIDE", "4"))
    result = call("diffusion", file, "--no-progress", "--out", tmp_path / "out", "--top-k", 3)
    assert result.exit_code == 0, result.output
    assert "2 queries × 12 examples" in result.stdout
    result = call("diffusion", file, "--no-progress", "--method", "mirrored-tuning",
                  "--out", tmp_path / "out", "--steps", 3)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "forward_inf(signed, descent)" in result.stdout
    table = pq.read_table(tmp_path / "out" / "scores.parquet")
    assert (np.asarray(table["query_0"]) > 0).any()
    assert "leave TRAIN and GENERATED out" in refused("diffusion", file, tmp_path, tmp_path)
    assert "need folders of an EDM" in refused("diffusion", file, "--before", tmp_path)
    file.write_text(CONTRACT.replace("SIDE", "3"))
    assert "generated images are [3, 4, 1] but the training images [4, 4, 1]" in refused(
        "diffusion", file
    )


def test_folders_name_their_classes(files, tmp_path):
    rng = np.random.default_rng(1)
    for name, count in (("all/a", 2), ("all/b", 1), ("made/b", 1)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    found = from_files(files[0], tmp_path / "all", tmp_path / "made", size=4, draws=2, seed=0)
    # alone in its folder, b is still the second class
    assert found.queries["y"].tolist() == [1]
    assert found.train["y"].tolist() == [0, 0, 1]
    assert found.queries["x"].shape == (1, 4, 4, 1)
    assert found.describe is not None
    assert found.describe({"x": found.queries["x"][0], "y": np.int32(1)})[0] == "b"


def test_what_does_not_fit_is_refused_in_one_line(files, refused, tmp_path):
    model, train, made = files
    with np.load(made) as held:
        x, y = held["x"], held["y"]

    def refusal(x, y):
        np.savez(tmp_path / "bad.npz", x=x, y=y)
        return refused("diffusion", model, train, tmp_path / "bad.npz")

    assert "another size" not in refusal(np.zeros((1, 5, 5, 1), np.float32), y[:1])
    assert "generated images are [5, 5, 1]" in refusal(np.zeros((1, 5, 5, 1), np.float32), y[:1])
    assert "out of range for 2 classes" in refusal(x, y + 5)
    assert "floats in [-1, 1]" in refusal(x * 3, y)
    assert "generated is empty" in refusal(x[:0], y[:0])
    assert "after the model" in refused("diffusion", model)
    assert "no edm.json" in refused("diffusion", tmp_path, train, made)
    mirrored = ("diffusion", model, train, made, "--method", "mirrored-tuning")
    assert "leave normalise out" in refused(*mirrored, "--normalise", "loss")
    assert "learning_rate is -1.0" in refused(*mirrored, "--learning-rate", "-1")
