import numpy as np
import pytest

from jaxinf.datasets import duplicate_within, load_digits, plant_duplicates, plant_kinds
from jaxinf.datasets.duplicates import KINDS
from jaxinf.datasets.transforms import NAMED
from jaxinf.errors import InputError


def images(count, seed, dtype=np.uint8, channels=3):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (count, 8, 8, channels), np.uint8)
    x = x if dtype == np.uint8 else (x / 255).astype(dtype)
    return {"x": x, "y": rng.integers(0, 4, count).astype(np.int32)}


def test_exact_copies_are_found_by_comparing_bytes():
    train, test = images(50, 0), images(10, 1)
    planted = plant_duplicates(train, test, 12, seed=2)
    np.testing.assert_array_equal(planted.examples["x"][:10], test["x"])
    np.testing.assert_array_equal(planted.examples["y"][:10], test["y"])
    equal = (planted.examples["x"][:, None] == train["x"][None]).all(axis=(2, 3, 4))
    found = np.where(equal.any(axis=1), equal.argmax(axis=1), -1)
    np.testing.assert_array_equal(found, planted.source)
    copies = planted.source[10:]
    assert len(np.unique(copies)) == 12
    np.testing.assert_array_equal(planted.examples["y"][10:], train["y"][copies])
    np.testing.assert_array_equal(planted.original_labels, planted.examples["y"])
    assert (plant_duplicates(train, test, 12, seed=3).source != planted.source).any()


@pytest.mark.parametrize("near", ["shift", "noise", "brightness", "crop", "jpeg"])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.float32, 1)])
def test_near_copies_differ_but_their_source_is_the_nearest(near, dtype, channels):
    digits = load_digits()[0]["x"][:100]
    x = np.repeat(digits, channels, axis=3)
    x = np.rint(255 * x).astype(np.uint8) if dtype == np.uint8 else x
    train = {"x": x, "y": np.zeros(100, np.int32)}
    test = {"x": x[:1], "y": np.zeros(1, np.int32)}
    planted = plant_duplicates(train, test, 40, seed=0, near=near)
    copies, sources = planted.examples["x"][1:], planted.source[1:]
    assert copies.dtype == dtype
    assert (copies != x[sources]).any(axis=(1, 2, 3)).all()
    assert copies.min() >= x.min()
    assert copies.max() <= x.max() if dtype == np.float32 else copies.max() <= 255
    if near not in ("shift", "crop"):  # which move 8x8 pixels too far for plain distances
        flat = lambda a: a.reshape(len(a), -1).astype(float)
        distance = ((flat(copies)[:, None] - flat(x)[None]) ** 2).sum(axis=2)
        np.testing.assert_array_equal(distance.argmin(axis=1), sources)


def test_shift_moves_by_one_pixel():
    x = np.zeros((30, 5, 5), np.uint8)
    x[:, 2, 2] = 1
    doubled = duplicate_within({"x": x, "y": np.zeros(30, int)}, 30, 0, near="shift")
    _, rows, columns = np.nonzero(doubled.examples["x"][30:])
    moves = set(zip((rows - 2).tolist(), (columns - 2).tolist(), strict=True))
    assert moves == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)} - {(0, 0)}


def test_own_transform_and_relabelling():
    train, test = images(20, 0), images(5, 1)
    planted = plant_duplicates(
        train, test, 20, seed=0, near=lambda x, rng: 255 - x, relabel_among=4
    )
    np.testing.assert_array_equal(planted.examples["x"][5:], 255 - train["x"])
    np.testing.assert_array_equal(planted.original_labels[5:], train["y"])
    assert (planted.examples["y"][5:] != train["y"]).all()
    assert planted.examples["y"].max() < 4
    assert planted.examples["y"].dtype == np.int32


def test_every_kind_has_its_own_sources_and_its_own_change():
    train, test = images(40, 0), images(5, 1)
    planted = plant_kinds(train, test, 6, seed=3, num_classes=4)
    assert planted.kind.tolist() == [""] * 5 + [kind for kind in KINDS for _ in range(6)]
    copies, source = planted.examples, planted.source
    assert len(np.unique(source[5:])) == 36
    np.testing.assert_array_equal(source[:5], -1)
    np.testing.assert_array_equal(planted.original_labels[5:], train["y"][source[5:]])
    for kind in KINDS:
        rows = np.flatnonzero(planted.kind == kind)
        original = train["x"][source[rows]]
        same = (copies["x"][rows] == original).all(axis=(1, 2, 3))
        assert (same == (kind not in NAMED)).all()
        relabelled = copies["y"][rows] != train["y"][source[rows]]
        assert (relabelled == (kind == "relabelled")).all()
    again = plant_kinds(train, test, 6, seed=3, num_classes=4)
    np.testing.assert_array_equal(again.examples["x"], copies["x"])
    assert (plant_kinds(train, test, 6, seed=4, num_classes=4).source != source).any()


def test_other_leaves_are_copied_along():
    train = {**images(6, 0), "weight": np.arange(6, dtype=np.float32)}
    doubled = duplicate_within(train, 6, seed=0)
    np.testing.assert_array_equal(doubled.source, [-1] * 6 + list(range(6)))
    np.testing.assert_array_equal(doubled.examples["weight"], np.tile(np.arange(6), 2))
    np.testing.assert_array_equal(doubled.examples["x"][6:], train["x"])


TRAIN, TEST = images(5, 0), images(3, 1)
TABLE = {"x": np.zeros((5, 2), np.float32), "y": np.zeros(5, int)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plant_duplicates(TRAIN, TEST, 6, 0), "count is 6: copy between 1 and 5"),
        (lambda: plant_duplicates(TRAIN, TEST, 0, 0), "count is 0"),
        (lambda: plant_kinds(TRAIN, TEST, 1, 0), "6 kinds of 5 examples allow 1 to 0"),
        (lambda: plant_kinds(TRAIN, TEST, 1, 0, kinds=("exact", "blur")), r"kinds is \['exact'"),
        (lambda: plant_kinds(TRAIN, TEST, 1, 0, kinds=("exact", "exact")), "each once"),
        (lambda: plant_kinds(TRAIN, TEST, 1, 0, kinds=()), r"kinds is \[\]"),
        (lambda: duplicate_within(TRAIN, 6, 0), "count is 6"),
        (
            lambda: plant_duplicates(TRAIN, TABLE, 1, 0),
            r"rows of train\['x'\] are uint8\[8, 8, 3\]",
        ),
        (lambda: plant_duplicates(TRAIN, images(3, 1, np.float32), 1, 0), "float32"),
        (lambda: plant_duplicates({**TRAIN, "w": np.ones(5)[:, None] > 0}, TEST, 1, 0), "holds"),
        (lambda: plant_duplicates(TRAIN, TEST, 1, 0, near="blur"), "near is 'blur'"),
        (lambda: plant_duplicates(TABLE, TABLE, 1, 0, near="shift"), r"train\['x'\] has shape"),
        (lambda: plant_duplicates(TRAIN, TEST, 1, 0, near=lambda x, rng: x[:, :4]), "keep the"),
        (lambda: plant_duplicates(TRAIN, TEST, 1, 0, relabel_among=2), "out of range"),
        (lambda: plant_duplicates(TABLE, TABLE, 1, 0, relabel_among=1), "relabel_among is 1"),
        (
            lambda: duplicate_within(images(3, 0, channels=2), 1, 0, near="jpeg"),
            "1 or 3 channels",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
