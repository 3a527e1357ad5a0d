import numpy as np
import pytest

from jaxinf.datasets import normalise, read_jpeg_pack
from jaxinf.errors import InputError
from jaxinf.models import MLP, load_cifar_resnet, predict, variables_from_torch
from jaxinf.models.weights import _torch_name

FILE = "akamaster_resnet20_cifar10.npz"


@pytest.fixture
def arrays(shared_data):
    with np.load(shared_data / FILE) as file:
        return dict(file)


def linear_weights(prefix=""):
    return {
        f"{prefix}linear.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        f"{prefix}linear.bias": np.ones(2, np.float32),
        f"{prefix}bn.num_batches_tracked": np.int64(3),
    }


@pytest.mark.parametrize("prefix", ["", "module."])
def test_dense_layers_are_transposed_and_prefixes_dropped(prefix):
    variables = variables_from_torch(MLP((), 2), linear_weights(prefix), (3,))
    head = variables["params"]["linear"]
    np.testing.assert_array_equal(head["kernel"], np.arange(6).reshape(2, 3).T)
    np.testing.assert_array_equal(head["bias"], np.ones(2))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("params", "layer1_0", "conv1", "kernel"), "layer1.0.conv1.weight"),
        (("params", "layer2_1", "shortcut_1", "scale"), "layer2.1.shortcut.1.weight"),
        (("batch_stats", "bn1", "var"), "bn1.running_var"),
    ],
)
def test_names(path, name):
    assert _torch_name(path) == name


def test_all_problems_in_one_message():
    weights = linear_weights()
    weights["linear.weight"] = weights["linear.weight"][:, :2]
    weights["extra"] = weights.pop("linear.bias")
    with pytest.raises(InputError) as caught:
        variables_from_torch(MLP((), 2), weights, (3,))
    assert str(caught.value) == (
        "state_dict does not fit MLP: missing: linear.bias; unexpected: extra; "
        "wrong shape: linear.weight is (2, 2), not (2, 3)"
    )


def test_values_are_checked():
    weights = linear_weights()
    weights["linear.bias"][1] = np.inf
    with pytest.raises(InputError, match=r"state_dict\['linear.bias'\] holds 1 NaN or infinite"):
        variables_from_torch(MLP((), 2), weights, (3,))


def test_bad_files(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name, message in {
        "absent.npz": "no such file",
        "objects.npz": r"no \.npz of plain arrays",
        "array.npy": r"no \.npz of plain arrays",
        "text.npz": r"no \.npz of plain arrays",
        "empty.npz": r"no \.npz of plain arrays",
        "other.npz": "holds no CIFAR ResNet",
    }.items():
        with pytest.raises(InputError, match=message):
            load_cifar_resnet(tmp_path / name)


def test_a_damaged_resnet_file_is_refused(arrays, tmp_path):
    del arrays["layer2.1.bn1.running_var"]
    arrays["layer1.0.conv2.weight"] = arrays["layer1.0.conv2.weight"][:8]
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(InputError) as caught:
        load_cifar_resnet(tmp_path / "w.npz")
    assert "missing: layer2.1.bn1.running_var" in str(caught.value)
    assert "layer1.0.conv2.weight is (8, 16, 3, 3), not (16, 16, 3, 3)" in str(caught.value)


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_depth_is_read_off_the_file(shared_data, depth):
    module, variables = load_cifar_resnet(shared_data / f"akamaster_resnet{depth}_cifar10.npz")
    assert (module.depth, module.num_classes) == (depth, 10)
    assert set(variables) == {"params", "batch_stats"}


@pytest.mark.slow
def test_accuracy_of_pretrained_resnet20_on_real_images(shared_data):
    # 91.78 % on CIFAR-10 itself; about 81 % on this lossily compressed copy
    module, variables = load_cifar_resnet(shared_data / FILE)
    rows = np.random.default_rng(0).choice(10_000, size=1000, replace=False) + 50_000
    images = read_jpeg_pack(shared_data / "cifar10_jpeg.npz", rows)
    x = normalise(images["x"], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    accuracy = (predict(module, variables, x).argmax(-1) == images["y"]).mean()
    assert 0.76 <= accuracy <= 0.88
