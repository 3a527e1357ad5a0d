import jax
import jax.numpy as jnp
import numpy as np

from jaxinf.models import ResNet9


def test_shapes_and_parameters():
    model = ResNet9(num_classes=10)
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    # 3x3 convolutions, two BatchNorm vectors each, and the head
    widths = [(3, 64), (64, 128), *[(128, 128)] * 2, (128, 256), (256, 512), *[(512, 512)] * 2]
    expected = sum(9 * i * o + 2 * o for i, o in widths) + 512 * 10 + 10
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected


def test_head_of_features_is_logits():
    model = ResNet9(num_classes=3, width=2)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    both = jax.jit(lambda v: (model.apply(v, x), model.apply(v, x, method="features")))
    logits, features = both(variables)
    head = variables["params"]["linear"]
    assert features.shape == (2, 16)
    np.testing.assert_allclose(
        logits,
        0.125 * (features @ head["kernel"] + head["bias"][None]),
        rtol=1e-4,
        atol=1e-5,
    )
