import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models import cross_entropy, margin, next_token_cross_entropy, squared_error

LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
LABELS = np.array([0, 3, 1, 1, 2])


def test_cross_entropy_values():
    losses = jax.jit(cross_entropy)(LOGITS, {"y": LABELS})
    np.testing.assert_allclose(losses, -np.log(PROBABILITIES[np.arange(5), LABELS]), rtol=1e-5)


@pytest.mark.parametrize("lead", [-200.0, -30.0, -1.0, 4.0, 12.0, 17.0, 40.0, 80.0])
def test_cross_entropy_and_its_gradient_keep_their_relative_precision(lead):
    # by how much the label's logit leads; from 17 on, 1 - p is below the rounding of float32
    logits = np.array([[lead, 0.0, -0.5, -3.0]])
    found, grads = jax.value_and_grad(lambda z: cross_entropy(z, {"y": jnp.array([0])})[0])(
        jnp.asarray(logits, jnp.float32)
    )
    rest = np.exp(logits[0, 1:] - lead)
    expected = np.r_[-rest.sum(), rest] / (1 + rest.sum())
    np.testing.assert_allclose(found, np.log1p(rest.sum()), rtol=1e-5)
    np.testing.assert_allclose(grads[0], expected, rtol=1e-5)


def test_cross_entropy_of_the_surest_and_of_masked_classes():
    grad = jax.grad(lambda z: cross_entropy(z, {"y": jnp.array([0])}).sum())
    sure = jnp.array([[500.0, 0.0, 0.0]])
    assert cross_entropy(sure, {"y": jnp.array([0])})[0] < 1e-30
    assert not grad(sure).any()
    # -inf: a class that is ruled out
    masked = jnp.array([[1.0, 0.0, -jnp.inf]])
    np.testing.assert_allclose(
        cross_entropy(masked, {"y": jnp.array([0])}), [np.log1p(np.exp(-1))], rtol=1e-6
    )
    assert np.isfinite(grad(masked)).all()
    assert cross_entropy(masked, {"y": jnp.array([2])})[0] == jnp.inf


def test_cross_entropy_of_half_precision_is_taken_in_single():
    logits = jnp.array([[12.0, 0.0, -0.5]], jnp.bfloat16)
    found = cross_entropy(logits, {"y": jnp.array([0])})
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(float), np.log1p(np.exp(-12) * 1.6065), rtol=0.01)


def test_a_single_class_has_no_cross_entropy():
    for function in (cross_entropy, margin):
        with pytest.raises(InputError, match="at least two classes"):
            function(jnp.zeros((3, 1)), {"y": jnp.zeros(3, int)})


def test_margin_values():
    p = PROBABILITIES[np.arange(5), LABELS]
    outputs = jax.jit(margin)(LOGITS, {"y": LABELS})
    np.testing.assert_allclose(outputs, np.log(p / (1 - p)), rtol=1e-4)


@pytest.mark.parametrize("function", [cross_entropy, margin])
def test_labels_out_of_range_give_nan_in_value_and_derivatives(function):
    batch, bad = {"y": jnp.array([0, -1, 4, -4, 1000])}, [False, True, True, True, True]

    def derivatives(logits):
        losses, tangents = jax.jvp(lambda logits: function(logits, batch), (logits,), (logits,))
        return losses, tangents, jax.grad(lambda logits: function(logits, batch).sum())(logits)

    losses, tangents, grads = jax.jit(derivatives)(LOGITS)
    assert np.isnan(losses).tolist() == bad
    assert np.isnan(tangents).tolist() == bad
    assert np.isnan(grads).all(axis=1).tolist() == bad
    assert np.isfinite(grads[0]).all()


def sequence():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(2, 4, 5)), jnp.float32), rng.integers(0, 5, (2, 4))


def test_next_token_values_and_mask():
    logits, tokens = sequence()
    logp = np.asarray(jax.nn.log_softmax(logits))
    each = -np.stack([[logp[b, t, tokens[b, t + 1]] for t in range(3)] for b in range(2)])
    np.testing.assert_allclose(
        next_token_cross_entropy(logits, {"x": tokens}), each.mean(1), rtol=1e-5
    )
    mask = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
    padded = np.where(mask, tokens, -1)
    losses = next_token_cross_entropy(logits, {"x": padded, "mask": mask})
    np.testing.assert_allclose(losses, [each[0, :2].mean(), 0], rtol=1e-5)


@pytest.mark.parametrize("lead", [4.0, 17.0, 40.0])
def test_a_sure_token_keeps_its_relative_precision(lead):
    logits = jnp.array([[[lead, 0.0, -0.5], [lead, 0.0, -0.5], [0.0, 0.0, 0.0]]])
    batch = {"x": jnp.array([[1, 0, 0]])}
    found, grads = jax.value_and_grad(lambda z: next_token_cross_entropy(z, batch)[0])(logits)
    rest = np.exp(-lead) + np.exp(-0.5 - lead)
    np.testing.assert_allclose(found, np.log1p(rest), rtol=1e-5)
    np.testing.assert_allclose(grads[0, :2, 0], [-rest / (1 + rest) / 2] * 2, rtol=1e-5)
    assert not grads[0, 2].any()  # the last position predicts nothing


def test_next_token_out_of_range_is_nan_only_where_it_counts():
    logits, tokens = sequence()
    tokens = tokens.copy()
    tokens[1, 3] = 5
    assert np.isnan(next_token_cross_entropy(logits, {"x": tokens})).tolist() == [False, True]
    batch = {"x": tokens, "mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool)}
    grads = jax.grad(lambda logits: next_token_cross_entropy(logits, batch).sum())(logits)
    assert np.isfinite(grads).all()


def test_squared_error():
    outputs, y = jnp.array([[1.0, 2.0], [0.0, -1.0]]), jnp.array([[0.0, 0.0], [0.0, 1.0]])
    assert squared_error(outputs, {"y": y}).tolist() == [5.0, 4.0]
    assert squared_error(outputs[:, :1], {"y": y[:, 1]}).tolist() == [1.0, 1.0]
    assert squared_error(outputs[:, 0], {"y": y[:, 1]}).tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match=r"outputs have shape \(2, 2\) but y \(2,\)"):
        squared_error(outputs, {"y": y[:, 0]})
