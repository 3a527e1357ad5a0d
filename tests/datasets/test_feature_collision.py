import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.datasets import feature_collision
from jaxinf.errors import InputError

WEIGHTS = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32) / 7


def hidden(x):
    return jnp.tanh(x.reshape(x.shape[0], -1) @ WEIGHTS)


def clean(dtype=np.float32):
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, (40, 4, 4, 3)).astype(np.float32)
    x[20:] = x[20:] * 0.5 + 0.5
    if dtype == np.uint8:
        x = np.rint(255 * x).astype(np.uint8)
    return {"x": x, "y": np.repeat([0, 1], 20).astype(np.int32)}


def collide(examples, feature_fn=hidden, **options):
    given = {"base_class": 0, "count": 5, "max_change": 0.2, "num_steps": 60, "seed": 0} | options
    target = given.pop("target", None)
    target = examples["x"][30] if target is None else target
    return feature_collision(examples, target, feature_fn, **given)


def test_poisons_collide_within_their_bounds_and_keep_their_labels():
    examples = clean()
    found = collide(examples)
    changed, rows = found.examples["x"], found.rows
    assert found.is_poisoned.sum() == 5
    np.testing.assert_array_equal(np.flatnonzero(found.is_poisoned), rows)
    assert (examples["y"][rows] == 0).all()
    np.testing.assert_array_equal(found.examples["y"], examples["y"])
    np.testing.assert_array_equal(changed[~found.is_poisoned], examples["x"][~found.is_poisoned])
    assert np.abs(changed - examples["x"]).max() <= 0.2 + 1e-6
    assert changed.min() >= examples["x"].min()
    assert changed.max() <= examples["x"].max()
    assert (found.distance_after < 0.3 * found.distance_before).all()
    recomputed = np.linalg.norm(hidden(changed[rows]) - hidden(examples["x"][30:31]), axis=1)
    np.testing.assert_allclose(found.distance_after, recomputed, rtol=1e-5)


def test_more_room_brings_them_nearer():
    near, nearer = (collide(clean(), max_change=change) for change in (0.02, 0.1))
    assert (near.distance_after < near.distance_before).all()
    assert (nearer.distance_after < near.distance_after).all()


def test_every_base_is_worked_on_for_itself():
    examples = clean()
    together = collide(examples, count=20, value_range=(0, 1))
    first = {key: value[:1] for key, value in examples.items()}
    alone = collide(first, count=1, target=examples["x"][30], value_range=(0, 1))
    np.testing.assert_allclose(together.examples["x"][0], alone.examples["x"][0], atol=1e-4)
    assert together.is_poisoned[:20].all()


def test_stored_bytes_are_rounded_before_distances_are_taken():
    examples = clean(np.uint8)
    found = collide(examples, lambda x: hidden(x / 255), max_change=50)
    assert found.examples["x"].dtype == np.uint8
    difference = found.examples["x"].astype(int) - examples["x"]
    assert np.abs(difference).max() <= 50
    recomputed = np.linalg.norm(
        hidden(found.examples["x"][found.rows] / 255.0) - hidden(examples["x"][30:31] / 255.0),
        axis=1,
    )
    np.testing.assert_allclose(found.distance_after, recomputed, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": np.zeros((4, 4), np.float32)}, r"target has shape \(4, 4\)"),
        ({"target": np.full((4, 4, 3), np.nan, np.float32)}, "target holds 48 NaN"),
        ({"max_change": 0}, "max_change is 0"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"count": 21}, "class 0 has 20 examples"),
        ({"base_class": 7}, "class 7 has 0 examples"),
        ({"value_range": (1, 0)}, r"value_range is \(1, 0\)"),
        ({"feature_fn": lambda x: jnp.sum(x)}, "one row per input is needed"),
        ({"feature_fn": lambda x: jnp.log(x - 9)}, "NaN or infinite features"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        collide(clean(), **options)


def test_x64_is_not_needed_and_not_broken(x64):
    found = collide(clean())
    assert found.examples["x"].dtype == np.float32
    assert jax.dtypes.canonicalize_dtype(np.float64) == np.float64
