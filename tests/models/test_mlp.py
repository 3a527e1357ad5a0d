import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.models import MLP


def test_head_of_features_is_logits():
    model = MLP(hidden=[7, 5], num_classes=3)
    x = jax.random.normal(jax.random.key(1), (4, 2, 2, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    features = model.apply(variables, x, method="features")
    head = variables["params"]["linear"]
    logits = model.apply(variables, x, train=True)
    assert features.shape == (4, 5)
    assert set(variables) == {"params"}
    np.testing.assert_allclose(
        logits, features @ head["kernel"] + head["bias"][None], rtol=1e-5, atol=1e-6
    )


def test_without_hidden_layers_it_is_linear():
    model = MLP((), num_classes=3)
    x = jax.random.normal(jax.random.key(1), (4, 2, 2, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    zero = model.apply(variables, jnp.zeros_like(x))
    np.testing.assert_allclose(
        model.apply(variables, 3 * x) - zero,
        3 * (model.apply(variables, x) - zero),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_list_of_widths_can_be_hashed():
    assert hash(MLP([3])) == hash(MLP((3,)))
