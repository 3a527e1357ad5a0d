import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxinf.errors import InputError
from jaxinf.membership import bag_of_words_control, feature_control

RNG = np.random.default_rng(0)
MEMBER = np.arange(300) % 2 == 0
WORDS = np.array([f"word{n}" for n in range(12)])


def captions(shift):
    """Three words each; members take the first words more often by `shift`."""
    weights = np.linspace(1 + shift, 1, 12), np.linspace(1, 1 + shift, 12)
    return [
        " ".join(RNG.choice(WORDS, 3, p=weights[int(m)] / weights[int(m)].sum())) for m in MEMBER
    ]


def test_words_that_tell_are_found_and_others_are_not():
    assert roc_auc_score(MEMBER, bag_of_words_control(captions(8), MEMBER, seed=0)) > 0.75
    nothing = roc_auc_score(MEMBER, bag_of_words_control(captions(0), MEMBER, seed=0))
    assert 0.38 < nothing < 0.6


def test_single_letters_and_digits_are_words():
    texts = ["a 1" if m else "b 2" for m in MEMBER]
    assert roc_auc_score(MEMBER, bag_of_words_control(texts, MEMBER, seed=0)) == 1


def test_no_example_is_scored_by_a_model_that_was_trained_on_it():
    # every caption is one word of its own: nothing carries over from fold to fold
    texts = [f"only{n}" for n in range(300)]
    scores = bag_of_words_control(texts, MEMBER, seed=0)
    np.testing.assert_allclose(scores, 0, atol=0.05)
    features = RNG.normal(size=(300, 200)).astype(np.float32)
    assert 0.35 < roc_auc_score(MEMBER, feature_control(features, MEMBER, seed=0)) < 0.65


def test_groups_share_a_fold():
    # pairs of equal captions with equal labels: within groups nothing can be learnt
    groups = np.repeat(np.arange(150), 2)
    member = np.repeat(np.arange(150) % 2 == 0, 2)
    texts = [f"only{n}" for n in groups]
    apart = bag_of_words_control(texts, member, seed=0, groups=groups)
    np.testing.assert_allclose(apart, 0, atol=0.1)
    straddling = bag_of_words_control(texts, member, seed=0)
    assert roc_auc_score(member, straddling) > 0.8


def test_features_that_tell_are_found():
    features = RNG.normal(size=(300, 5)).astype(np.float32)
    features[:, 2] += 1.5 * MEMBER
    assert roc_auc_score(MEMBER, feature_control(features, MEMBER, seed=0)) > 0.75
    scaled = 100 * features + 7
    np.testing.assert_allclose(
        feature_control(scaled, MEMBER, seed=0),
        feature_control(features, MEMBER, seed=0),
        atol=1e-3,
    )


TEXTS = ["a", "b", "c", "d"]
FOUR = np.array([True, False, True, False])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bag_of_words_control(["a", None], FOUR[:2], seed=0), r"captions\[1\] is NoneType"),
        (lambda: bag_of_words_control(["!", ""], FOUR[:2], seed=0), "hold no word"),
        (lambda: bag_of_words_control(TEXTS, FOUR[:3], seed=0), r"bool\[3\]: bool\[4\]"),
        (lambda: bag_of_words_control(TEXTS, [1, 0, 1, 0], seed=0), r"int64\[4\]: bool\[4\]"),
        (lambda: bag_of_words_control(TEXTS, FOUR, seed=0), "2 members: a control with 5 folds"),
        (lambda: bag_of_words_control(TEXTS, FOUR, seed=0, num_folds=1), "num_folds is 1"),
        (
            lambda: bag_of_words_control(TEXTS, FOUR, seed=0, num_folds=2, groups=[0, 1]),
            r"groups have shape \(2,\)",
        ),
        (
            lambda: bag_of_words_control(TEXTS, FOUR, seed=0, num_folds=2, groups=[0, 1, 0, 1]),
            "1 groups of members",
        ),
        (
            lambda: feature_control(np.full((4, 2), np.nan, np.float32), FOUR, seed=0),
            "8 NaN or infinite",
        ),
        (lambda: feature_control(np.ones(4, np.float32), FOUR, seed=0), "one row per example"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
