import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models import CifarResNet, PreActResNet18, ResNet18, variables_from_torch

PAIRS = {
    "resnet18": (ResNet18(width=16), ("Block", (2, 2, 2, 2), 16, "B")),
    "preact": (PreActResNet18(width=16), ("PreActBlock", (2, 2, 2, 2), 16)),
    "cifar8": (CifarResNet(8), ("Block", (1, 1, 1), 16, "A")),
    "cifar20": (CifarResNet(20), ("Block", (3, 3, 3), 16, "A")),
}


def torch_pair(name):
    torch = pytest.importorskip("torch")
    import torch_resnets

    module, (block, *rest) = PAIRS[name]
    peer = torch_resnets.ResNet(getattr(torch_resnets, block), *rest)
    peer = torch_resnets.randomize(peer, seed=0)
    weights = {key: tensor.numpy() for key, tensor in peer.state_dict().items()}
    return torch, module, peer, variables_from_torch(module, weights, (32, 32, 3))


# an even and an odd size: explicit and "SAME" padding differ on the even one
@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 16), ("preact", 16), ("cifar20", 32), ("cifar8", 27)]
)
def test_same_outputs_as_pytorch(name, size):
    torch, module, peer, variables = torch_pair(name)
    x = np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = peer.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    logits = np.asarray(jax.jit(module.apply)(variables, x))
    assert np.linalg.norm(expected) > 0.1
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_same_outputs_as_pytorch_in_train_mode():
    torch, module, peer, variables = torch_pair("cifar8")
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = peer.train()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    apply = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]))
    logits, moved = apply(variables, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    mean = moved["batch_stats"]["layer2_0"]["bn1"]["mean"]
    theirs = peer.state_dict()["layer2.0.bn1.running_mean"].numpy()
    np.testing.assert_allclose(mean, theirs, rtol=1e-3, atol=1e-4)
    # PyTorch's running variance is unbiased, ours biased: only the batch's tenth differs
    var = moved["batch_stats"]["layer2_0"]["bn1"]["var"]
    before, theirs = (
        variables["batch_stats"]["layer2_0"]["bn1"]["var"],
        peer.state_dict()["layer2.0.bn1.running_var"].numpy(),
    )
    n = 4 * 16 * 16
    np.testing.assert_allclose((var - 0.9 * before) * n / (n - 1), theirs - 0.9 * before, rtol=1e-3)


@pytest.mark.parametrize(
    ("module", "width"), [(ResNet18(), 512), (PreActResNet18(), 512), (CifarResNet(56), 64)]
)
def test_features(module, width):
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    features = jax.eval_shape(lambda v, x: module.apply(v, x, method="features"), variables, x)
    assert set(variables) == {"params", "batch_stats"}
    assert features.shape == (2, width)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_cifar_resnet_sizes_of_the_paper(depth, millions):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(CifarResNet(depth).init, jax.random.key(0), x)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert round(count / 1e6, 2) == millions


def test_depth_is_checked():
    with pytest.raises(InputError, match=r"depth is 18: it must be 6n \+ 2"):
        CifarResNet(18).init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
