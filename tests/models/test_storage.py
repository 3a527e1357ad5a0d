from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinf.errors import InputError
from jaxinf.models import load_variables, save_variables

TREE = {
    "params": {"dense": [{"kernel": jnp.arange(6.0).reshape(3, 2)}, (jnp.ones(2, jnp.bfloat16),)]},
    "batch_stats": {},
    "step": jnp.int32(4),
}


def test_round_trip_without_a_target(tmp_path):
    save_variables(tmp_path / "w", TREE)
    loaded = load_variables(tmp_path / "w")
    leaf = loaded["params"]["dense"][0]["kernel"]
    assert isinstance(leaf, np.ndarray)
    np.testing.assert_array_equal(leaf, np.arange(6.0, dtype=np.float32).reshape(3, 2))
    assert loaded["params"]["dense"][1][0].dtype == jnp.bfloat16
    assert loaded["step"].shape == ()


def test_round_trip_with_a_target(tmp_path):
    Pair = namedtuple("Pair", ["z", "a"])
    optimizer = optax.chain(optax.adam(1e-3), optax.ema(0.9))
    tree = {
        **TREE,
        "opt": optimizer.init(TREE["params"]),
        "pair": Pair(jnp.zeros(2), jnp.ones(2)),
    }
    save_variables(tmp_path / "w", tree)
    like = jax.eval_shape(lambda: tree)
    loaded = load_variables(tmp_path / "w", like=like)
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, loaded, tree)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"w": np.ones((4, 2), np.float32)}, r"w is float32\[3, 2\], not float32\[4, 2\]"),
        ({"w": np.ones((3, 2), np.float16)}, r"w is float32\[3, 2\], not float16\[3, 2\]"),
        ({"v": np.ones((3, 2), np.float32)}, "has no v: it belongs to another model"),
        ({}, "holds w, which is not expected"),
    ],
)
def test_another_structure_is_refused(tmp_path, like, message):
    save_variables(tmp_path / "w", {"w": np.ones((3, 2), np.float32)})
    with pytest.raises(InputError, match=message):
        load_variables(tmp_path / "w", like=like)


def test_bad_paths_and_trees(tmp_path):
    with pytest.raises(InputError, match="no orbax checkpoint there"):
        load_variables(tmp_path)
    with pytest.raises(InputError, match="exists: remove it"):
        save_variables(tmp_path, TREE)
    for nothing in ({}, {"a": "text"}):
        with pytest.raises(InputError, match="a pytree of numeric arrays is needed"):
            save_variables(tmp_path / "w", nothing)
    assert not (tmp_path / "w").exists()
