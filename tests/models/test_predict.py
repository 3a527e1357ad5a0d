import jax
import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.models import BatchNormCNN, predict

MODEL = BatchNormCNN(widths=(4,), num_classes=3)
X = np.random.default_rng(0).normal(size=(11, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), X)


@pytest.mark.parametrize(
    ("batch_size", "method"), [(1, None), (4, None), (11, None), (64, None), (4, "features")]
)
def test_batches_change_nothing(variables, batch_size, method):
    expected = jax.jit(lambda v, x: MODEL.apply(v, x, method=method))(variables, X)
    outputs = predict(MODEL, variables, X, batch_size, method=method)
    assert isinstance(outputs, np.ndarray)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_bad_input(variables):
    with pytest.raises(InputError, match="batch_size is 0"):
        predict(MODEL, variables, X, 0)
    with pytest.raises(InputError, match="x is empty"):
        predict(MODEL, variables, X[:0])
    bad = X.copy()
    bad[3, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"x holds 1 NaN .* first in example 3"):
        predict(MODEL, variables, bad)
