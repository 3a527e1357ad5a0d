import numpy as np
import pytest

from jaxinf.datasets import split_into_sources
from jaxinf.errors import InputError


def clean(count=600, classes=4):
    x = np.arange(count, dtype=np.float32)[:, None]
    return {"x": x, "y": np.arange(count, dtype=np.int32) % classes}


def test_even_sources_differ_in_size_by_one_at_most_and_in_nothing_else():
    dealt = split_into_sources(clean(601), 4, seed=0)
    sizes = np.bincount(dealt.source)
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_allclose(dealt.class_shares, 0.25, atol=0.08)
    assert not dealt.is_flipped.any()
    np.testing.assert_array_equal(dealt.examples["y"], clean(601)["y"])


def test_the_recorded_truth_is_what_was_dealt():
    given = clean()
    dealt = split_into_sources(given, 3, concentration=0.5, label_noise=[0, 0.2, 1], seed=1)
    np.testing.assert_array_equal(dealt.original_labels, given["y"])
    np.testing.assert_array_equal(dealt.is_flipped, dealt.examples["y"] != given["y"])
    for supplier in range(3):
        own = dealt.source == supplier
        shares = np.bincount(given["y"][own], minlength=4) / own.sum()
        np.testing.assert_allclose(dealt.class_shares[supplier], shares)
        assert dealt.noise[supplier] == dealt.is_flipped[own].mean()
        wanted = (0, 0.2, 1)[supplier]
        assert abs(dealt.noise[supplier] - wanted) <= 0.5 / own.sum() + 1e-12
    assert set(np.unique(dealt.examples["y"])) <= set(range(4))


def test_a_small_concentration_skews_and_a_large_one_does_not():
    def skew(concentration):
        dealt = split_into_sources(clean(), 3, concentration=concentration, seed=0)
        return np.abs(dealt.class_shares - 0.25).max()

    assert skew(1000.0) < 0.05
    assert skew(0.3) > 0.25


def test_the_seed_decides():
    first, same, other = (
        split_into_sources(clean(), 3, label_noise=0.1, seed=s) for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.source, same.source)
    np.testing.assert_array_equal(first.is_flipped, same.is_flipped)
    assert (first.source != other.source).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sources": 0}, "num_sources is 0: give 1 to 600"),
        ({"num_sources": 601}, "num_sources is 601"),
        ({"concentration": 0.0}, "concentration is 0.0"),
        ({"concentration": 1e-3, "num_sources": 9}, "was dealt no example: raise concentration"),
        ({"label_noise": 1.5}, "label_noise is 1.5"),
        ({"label_noise": [0.1, 0.2]}, r"one per source \[3\]"),
        ({"num_classes": 2}, r"out of range for 2 classes"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        split_into_sources(clean(), **({"num_sources": 3, "seed": 0} | options))


def test_one_class_has_no_wrong_labels():
    with pytest.raises(InputError, match="there is one only"):
        split_into_sources(clean(classes=1), 2, label_noise=0.1, seed=0)
