import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.models import BatchNormCNN, SmallCNN


@pytest.mark.parametrize(("shape", "flat"), [((28, 28, 1), 4 * 4 * 64), ((32, 32, 3), 5 * 5 * 64)])
def test_small_cnn_shapes(shape, flat):
    model, x = SmallCNN(num_classes=7), jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    features = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, x)
    assert variables["params"]["Dense_0"]["kernel"].shape == (flat, 128)
    assert jax.eval_shape(model.apply, variables, x).shape == (2, 7)
    assert features.shape == (2, 128)


def test_small_cnn_sees_every_part_of_the_image():
    model, x = SmallCNN(), jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    grads = jax.jit(jax.grad(lambda x: model.apply(variables, x)[0].sum()))(x)
    assert (np.abs(grads[0].reshape(4, 7, 4, 7)).max(axis=(1, 3)) > 0).all()
    assert not grads[1].any()


def test_batch_norm_cnn_moves_its_statistics_in_train_mode_only():
    model = BatchNormCNN(widths=[4, 6], num_classes=3)
    x = 2 + jax.random.normal(jax.random.key(1), (5, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    assert hash(model) == hash(BatchNormCNN((4, 6), 3))

    def run(train):
        return model.apply(variables, x, train=train, mutable=["batch_stats"])[1]

    moved, kept = jax.jit(lambda: (run(True), run(False)))()
    first = jax.lax.conv_general_dilated(
        x,
        variables["params"]["Conv_0"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(
        moved["batch_stats"]["BatchNorm_0"]["mean"],
        0.1 * first.mean((0, 1, 2)),
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        moved["batch_stats"]["BatchNorm_0"]["var"], 0.9 + 0.1 * first.var((0, 1, 2)), rtol=1e-4
    )
    jax.tree.map(np.testing.assert_array_equal, kept["batch_stats"], variables["batch_stats"])


def test_evaluation_treats_each_image_alone():
    model = BatchNormCNN(widths=(4,), num_classes=3)
    x = jax.random.normal(jax.random.key(1), (5, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(
        apply(variables, x)[1:2], apply(variables, x[1:2]), rtol=1e-5, atol=1e-6
    )
    assert apply(variables, x).shape == (5, 3)
