import numpy as np
import pytest
from PIL import Image

from jaxinf.errors import InputError
from jaxinf.membership import (
    caption_overlap,
    iid_split,
    image_overlap,
    near_duplicate_groups,
    near_duplicates,
    normalise_caption,
    perceptual_hashes,
    url_overlap,
)


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("  The 2 Dogs, playing in the park!! ", "dogs playing park"),
        ("", ""),
        ("2021", ""),
        ("the of and", ""),
        ("Don't-stop 'til 5pm", "dontstop til pm"),
        ("ÉCOLE № ٣ 東京", "école № 東京"),
        ("tab\tand\nline", "tab line"),
    ],
)
def test_captions_are_lowered_and_stripped(caption, left):
    assert normalise_caption(caption) == left
    assert normalise_caption(left) == left


def test_captions_in_both_sets():
    first = ["A red car.", "blue sky", "2021", "red CAR 7", "the end"]
    second = ["green tree", "Car, red", "the Red car", "End!", "123"]
    found = caption_overlap(first, second)
    assert found.pairs.tolist() == [[0, 2], [3, 2], [4, 3]]
    assert found.first_rows.tolist() == [0, 3, 4]
    assert found.second_rows.tolist() == [2, 3]
    assert found.num_empty == 2
    assert str(found).startswith("3 rows of the first set and 2 of the second")
    apart = caption_overlap(["dog"], ["cat"])
    assert apart.pairs.shape == (0, 2)
    assert "0 rows of the first" in str(apart)


def test_the_earliest_match_is_told():
    assert caption_overlap(["dog"], ["cat", "dog", "dog"]).pairs.tolist() == [[0, 1]]
    assert caption_overlap(["dog"], ["cat", "dog", "dog"]).second_rows.tolist() == [1, 2]


def test_urls_keep_their_case_and_digits():
    found = url_overlap(["http://x/1", "http://x/A", ""], ["http://x/a", "http://x/1\n", ""])
    assert found.pairs.tolist() == [[0, 1]]
    assert found.num_empty == 2


@pytest.fixture(scope="module")
def images():
    """Six smooth random pictures."""
    rng = np.random.default_rng(0)
    small = rng.integers(256, size=(6, 6, 6, 3)).astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(x).resize((64, 64), bicubic)) for x in small])


def test_small_changes_keep_the_hash_and_others_do_not(images):
    hashes = perceptual_hashes(images)
    assert hashes.dtype == np.uint64
    noise = np.random.default_rng(1).integers(-3, 4, images.shape)
    changed = np.clip(images.astype(int) + noise + 5, 0, 255).astype(np.uint8)
    found = image_overlap(hashes, perceptual_hashes(changed)[[3, 0, 5]])
    assert found.pairs.tolist() == [[0, 1], [3, 0], [5, 2]]
    assert found.second_rows.tolist() == [0, 1, 2]
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    assert distances[~np.eye(6, dtype=bool)].min() > 10


def test_hashes_are_imagehashs(images):
    imagehash = pytest.importorskip("imagehash")
    grey = images[..., 0]
    for pictures in (images, grey, grey[..., None]):
        shown = pictures[..., 0] if pictures.shape[-1] == 1 else pictures
        expected = [str(imagehash.phash(Image.fromarray(x))) for x in shown]
        got = perceptual_hashes(pictures)
        assert [f"{int.from_bytes(h.tobytes(), 'big'):016x}" for h in got] == expected


def test_nearest_within_the_distance():
    first = np.uint64([0b0, 0b1111, 0b11111111])
    second = np.uint64([0b11, 0b1, 0b111111111111])
    found = image_overlap(first, second, max_distance=2)
    assert found.pairs.tolist() == [[0, 1], [1, 0]]
    assert found.second_rows.tolist() == [0, 1]
    assert image_overlap(first, second, max_distance=0).pairs.size == 0
    assert len(image_overlap(first, second, max_distance=4).pairs) == 3


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    first, second = (rng.integers(2**9, size=n, dtype=np.uint64) for n in (50, 30))
    whole = image_overlap(first, second, max_distance=1)
    blocks = near_duplicates._distance_blocks
    monkeypatch.setattr(near_duplicates, "_distance_blocks", lambda a, b: blocks(a, b, entries=64))
    parts = image_overlap(first, second, max_distance=1)
    np.testing.assert_array_equal(parts.pairs, whole.pairs)
    np.testing.assert_array_equal(parts.second_rows, whole.second_rows)
    assert len(whole.pairs) > 3


def test_groups_join_through_what_lies_between():
    hashes = np.uint64([0b0, 2**40 - 2**20, 0b11, 0b1111, 2**40 - 2**20 + 1])
    assert near_duplicate_groups(hashes, max_distance=2).tolist() == [0, 1, 0, 0, 1]
    assert near_duplicate_groups(hashes, max_distance=0).tolist() == [0, 1, 2, 3, 4]


def test_split_keeps_groups_together():
    rng = np.random.default_rng(0)
    groups = np.array([f"base-{n}" for n in rng.integers(80, size=500)])
    member = iid_split(groups, member_fraction=0.3, seed=0)
    for name in np.unique(groups):
        assert len(set(member[groups == name])) == 1
    assert member.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(member, iid_split(groups, member_fraction=0.3, seed=0))
    assert (member != iid_split(groups, member_fraction=0.3, seed=1)).any()


def test_split_is_fair_and_never_one_sided():
    share = np.mean([iid_split(np.arange(10), seed=seed) for seed in range(300)], axis=0)
    np.testing.assert_allclose(share, 0.5, atol=0.11)
    for fraction in (0.001, 0.999):
        member = iid_split([0, 0, 0, 1], member_fraction=fraction, seed=0)
        assert member.any()
        assert not member.all()


HASHES = np.zeros(2, np.uint64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normalise_caption(None), "a caption is NoneType"),
        (lambda: caption_overlap(["a"], [3]), "a caption is int"),
        (lambda: url_overlap([None], []), "a URL is NoneType"),
        (lambda: perceptual_hashes(np.zeros((2, 8, 8, 3))), "float64"),
        (lambda: perceptual_hashes(np.zeros((8, 8), np.uint8)), r"uint8\[8, 8\]"),
        (lambda: image_overlap(np.arange(3), HASHES), "hashes are int64"),
        (lambda: image_overlap(HASHES, HASHES, max_distance=65), "max_distance is 65"),
        (lambda: near_duplicate_groups(HASHES[:0]), r"uint64\[0\]"),
        (lambda: iid_split(np.zeros((2, 2)), seed=0), "one for each example"),
        (lambda: iid_split([1, 1], seed=0), "1 groups"),
        (lambda: iid_split([1, 2], member_fraction=1, seed=0), "member_fraction is 1"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
