"""`jaxinf influence` on a TOML file: our models, weights and data on disk."""

import jax
import numpy as np
import pytest

from jaxinf import attribute
from jaxinf.adapters import from_linen
from jaxinf.influence import grad_cos
from jaxinf.models import MLP, cross_entropy, save_variables

CONFIG = """
[model]
name = "mlp"
weights = "weights"
hidden = [4]
num_classes = 3
[train]
path = "data.npz"
format = "npz"
mean = 0.5
std = 0.25
classes = ["ant", "bee", "cat"]
[queries]
path = "data.npz"
indices = [20, 3]
[method]
name = "grad-cos"
"""


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 5, 5)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=np.arange(24) % 3)
    module = MLP((4,), num_classes=3)
    variables = module.init(jax.random.key(0), np.zeros((1, 5, 5, 1), np.float32))
    save_variables(tmp_path / "weights", variables)
    file = tmp_path / "run.toml"
    file.write_text(CONFIG)
    return file


def test_scores_are_those_of_the_library(call, config, tmp_path):
    out = tmp_path / "out"
    result = call("influence", config, "--out", out, "--no-progress")
    assert result.exit_code == 0, result.output

    module = MLP((4,), num_classes=3)
    variables = module.init(jax.random.key(0), np.zeros((1, 5, 5, 1), np.float32))
    with np.load(tmp_path / "data.npz") as data:
        x = ((data["x_train"][..., None] / 255 - 0.5) / 0.25).astype(np.float32)
        train = {"x": x, "y": data["y_train"].astype(np.int32)}
    queries = {key: value[[20, 3]] for key, value in train.items()}
    loss_fn, params = from_linen(module, variables, cross_entropy, train=False)
    want = attribute(grad_cos(loss_fn), params, queries, train, progress=False).scores
    with np.load(out / "scores.npz") as saved:
        np.testing.assert_allclose(saved["scores"], want, atol=1e-5)
        assert saved["scores"].argmax(axis=1).tolist() == [20, 3]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<b>cat</b>" in page
    assert "grad_cos" in page


def test_options_win_over_the_file(call, config, tmp_path):
    result = call(
        "influence",
        config,
        "--method",
        "forward-inf",
        "--steps",
        2,
        "--no-report",
        "--out",
        tmp_path / "out",
        "--no-progress",
    )
    assert result.exit_code == 0, result.output
    assert "forward_inf(signed, descent)" in result.stdout


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[model]", "[modell]", "has no section [model]"),
        ("[method]", "[methods]", "section [methods] is unknown"),
        ('name = "mlp"', 'name = "mpl"', "'mpl' is unknown: choose from cifar_resnet, mlp"),
        ('weights = "weights"', "", "[model] needs weights"),
        ('weights = "weights"', 'weights = "absent"', "no orbax checkpoint there"),
        ("hidden = [4]", "hidden = [5]", "weights: params/"),
        ("hidden = [4]", "hiden = [4]", "hiden"),
        ("mean = 0.5", "means = 0.5", "[train] has no key means"),
        ("std = 0.25", "std = 0.0", "std must be positive"),
        ("mean = 0.5", "mean = [0.1, 0.2]", "mean has shape (2,)"),
        ('path = "data.npz"\nindices', 'path = "absent.npz"\nindices', "absent.npz: no such file"),
        ("indices = [20, 3]", "indices = [24]", "index 24 is out of range"),
        ("indices = [20, 3]", "indices = []", "indices must be a list of row numbers"),
        ("indices = [20, 3]", "indices = [1]\nlimit = 2", "indices or limit, not both"),
        ("indices = [20, 3]", "limit = 0", "limit is 0"),
        ("indices = [20, 3]", 'split = "dev"', "choose train or test"),
        ('format = "npz"', 'format = "nzp"', "choose from npz, mnist"),
        ('format = "npz"', "", "[train] needs format"),
        ("classes = [", "classes = [1, ", "classes must be a list of names"),
        ('name = "grad-cos"', 'name = "grad-sin"', "method name 'grad-sin' is unknown"),
        ("num_classes = 3", "num_classes = 3 3", "is no TOML file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(refused, config, old, new, reason):
    assert old in CONFIG
    config.write_text(CONFIG.replace(old, new, 1))
    assert reason in refused("influence", config, "--no-progress")


def test_labels_that_the_model_does_not_have_are_refused(refused, config, tmp_path):
    with np.load(tmp_path / "data.npz") as data:
        images = data["x_train"]
    np.savez(tmp_path / "data.npz", x_train=images, y_train=np.arange(24) % 4)
    assert "out of range for 3 classes" in refused("influence", config)


@pytest.mark.slow
def test_a_pretrained_resnet_and_a_jpeg_pack(call, shared_data, tmp_path):
    file = tmp_path / "cifar.toml"
    file.write_text(
        f"""
[model]
name = "cifar_resnet20"
weights = "{shared_data}/akamaster_resnet20_cifar10.npz"
[train]
path = "{shared_data}/cifar10_jpeg.npz"
format = "jpeg-pack"
limit = 16
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[queries]
path = "{shared_data}/cifar10_jpeg.npz"
indices = [5]
"""
    )
    out = tmp_path / "out"
    result = call("influence", file, "--out", out, "--no-progress", "--method", "grad-cos")
    assert result.exit_code == 0, result.output
    with np.load(out / "scores.npz") as saved:
        assert saved["scores"].argmax() == 5
        assert saved["scores"].max() == pytest.approx(1, abs=1e-4)
