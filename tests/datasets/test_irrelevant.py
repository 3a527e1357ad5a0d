import numpy as np
import pytest

from jaxinf.datasets import irrelevant_examples
from jaxinf.errors import InputError


def clean():
    x = np.random.default_rng(0).integers(0, 100, (60, 4, 4), np.uint8)
    return {"x": x, "y": np.arange(60, dtype=np.int32) % 3}


FOREIGN = np.random.default_rng(1).integers(100, 256, (40, 4, 4), np.uint8)


def test_inputs_are_replaced_and_labels_stay():
    examples = clean()
    mixed = irrelevant_examples(examples, FOREIGN, 0.3, seed=0)
    bad = mixed.is_irrelevant
    assert bad.sum() == 18
    np.testing.assert_array_equal(mixed.examples["y"], examples["y"])
    np.testing.assert_array_equal(mixed.examples["x"][~bad], examples["x"][~bad])
    np.testing.assert_array_equal(mixed.examples["x"][bad], FOREIGN[mixed.foreign_row[bad]])
    assert (mixed.foreign_row[~bad] == -1).all()
    assert len(np.unique(mixed.foreign_row[bad])) == 18
    np.testing.assert_array_equal(examples["x"], clean()["x"])


def test_the_seed_draws_rows_and_inputs():
    first, same, other = (irrelevant_examples(clean(), FOREIGN, 0.3, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.foreign_row, same.foreign_row)
    assert (first.is_irrelevant != other.is_irrelevant).any()


@pytest.mark.parametrize(
    ("foreign", "rate", "message"),
    [
        (FOREIGN, 2, "rate is 2"),
        (FOREIGN[:5], 0.5, "foreign has 5 rows, and 30 are needed"),
        (FOREIGN[:, :3], 0.5, r"uint8\[3, 4\] and of examples\['x'\] uint8\[4, 4\]"),
        (FOREIGN.astype(np.float32), 0.5, "rows of foreign are float32"),
    ],
)
def test_bad_input(foreign, rate, message):
    with pytest.raises(InputError, match=message):
        irrelevant_examples(clean(), foreign, rate, seed=0)
