import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from jaxinf.errors import InputError
from jaxinf.evaluation.intervals import clopper_pearson
from jaxinf.evaluation.thresholds import threshold_at_fpr
from jaxinf.membership import membership_report

N = 2400
RNG = np.random.default_rng(0)
MEMBER = np.arange(N) < N // 2
NOISE = RNG.normal(size=N)
SHARED = RNG.normal(size=N)
STRONG = SHARED + 0.8 * MEMBER + 0.1 * RNG.normal(size=N)
SHIFT = SHARED + 0.8 * MEMBER + 0.1 * RNG.normal(size=N)
SEEDS = STRONG + 2 * RNG.normal(size=(4, N))


def report(scores=STRONG, **options):
    options = {"key": jax.random.key(0), "num_resamples": 200} | options
    options.setdefault("controls", {"noise": NOISE})
    return membership_report(scores, MEMBER, **options)


@pytest.fixture(scope="module")
def full():
    return report({"weak": NOISE[::-1], "strong": STRONG, "seeded": SEEDS})


def test_figures_are_those_of_the_scores(full):
    strong = full["strong"]
    assert strong.auc.estimate == pytest.approx(roc_auc_score(MEMBER, STRONG), abs=1e-6)
    assert strong.auc.low < strong.auc.estimate < strong.auc.high
    fpr, tpr, _ = roc_curve(MEMBER, STRONG, drop_intermediate=False)
    for rate in (0.1, 0.01):
        assert strong.tpr[rate].estimate == pytest.approx(tpr[fpr <= rate].max(), abs=1e-6)
        assert strong.tpr[rate].low <= strong.tpr[rate].estimate <= strong.tpr[rate].high
    assert strong.oracle.accuracy == pytest.approx(((1 + tpr - fpr) / 2).max())
    np.testing.assert_array_equal(strong.scores, STRONG)
    assert strong.roc.tpr[-1] == 1
    assert [f.name for f in full.attacks] == ["weak", "strong", "seeded"]
    assert [f.role for f in full.controls] == ["control"]


def test_rates_without_enough_non_members_have_a_reason_and_no_number(full):
    assert full["strong"].tpr[0.001] is None
    reasons = [caution for caution in full.cautions if "0.1 % FPR" in caution]
    assert len(reasons) == 1
    assert "at least 10000 are needed" in reasons[0]


def test_thresholds_are_set_on_half_of_the_non_members_and_judged_on_the_other(full):
    found = full["strong"].calibrated
    above = found.threshold < STRONG
    realised = round(found.fpr.estimate * N / 4)
    known = round(found.known_fpr.estimate * N / 4)
    assert realised + known == above[~MEMBER].sum()
    assert known == 30  # 5 % of 600
    assert found.fpr == clopper_pearson(realised, N // 4)
    assert found.tpr.estimate == pytest.approx(above[MEMBER].mean())
    assert found.accuracy == pytest.approx((found.tpr.estimate + 1 - found.fpr.estimate) / 2)
    assert found.accuracy < full["strong"].oracle.accuracy


def test_known_non_members_set_the_threshold():
    known = np.random.default_rng(1).normal(size=2000)
    found = report(known_nonmembers=known)["attack"].calibrated
    assert found.threshold == threshold_at_fpr(known, 0.05)
    assert found.fpr.estimate == pytest.approx((STRONG[~MEMBER] > found.threshold).mean())
    alike = report(known_nonmembers=known)
    assert not any("threshold" in caution for caution in alike.cautions)
    unlike = report(known_nonmembers=known - 1)
    assert any("are not like those it was judged by" in caution for caution in unlike.cautions)


def test_seeds_are_averaged_and_their_spread_is_told(full):
    seeded = full["seeded"]
    np.testing.assert_allclose(seeded.scores, SEEDS.mean(axis=0))
    expected = [roc_auc_score(MEMBER, row) for row in SEEDS]
    np.testing.assert_allclose(seeded.seeds.auc, expected, atol=1e-6)
    assert seeded.seeds.std == pytest.approx(np.std(expected, ddof=1), abs=1e-6)
    assert seeded.auc.estimate > max(expected)
    assert full["strong"].seeds is None


def test_differences_are_paired(full):
    names = [(d.first, d.second) for d in full.differences]
    assert names == [
        ("weak", "strong"),
        ("weak", "seeded"),
        ("weak", "noise"),
        ("strong", "seeded"),
        ("strong", "noise"),
        ("seeded", "noise"),
    ]
    for d in full.differences:
        assert d.auc.confidence == pytest.approx(1 - 0.05 / 3)
        expected = full[d.first].auc.estimate - full[d.second].auc.estimate
        assert d.auc.estimate == pytest.approx(expected, abs=1e-6)
        assert d.auc.low <= d.auc.estimate <= d.auc.high
    alike = report({"a": STRONG, "b": 2 * STRONG}).differences[0].auc
    assert (alike.low, alike.estimate, alike.high) == (0, 0, 0)


def test_an_attack_above_chance_and_every_control_is_evidence(full):
    assert full.verdict.evidence
    assert full.verdict.attack == "strong"
    assert full.verdict.text.startswith("evidence of membership: strong, AUC 0.697")
    assert "nearest: noise" in full.verdict.text
    assert str(full).splitlines()[0] == full.verdict.text


def test_a_control_that_does_as_well_leaves_no_evidence():
    found = report({"strong": STRONG}, controls={"noise": NOISE, "shift": SHIFT})
    assert found["strong"].auc.low > 0.65  # a fine figure, and worth nothing
    assert not found.verdict.evidence
    assert found.verdict.text.startswith(
        "no evidence of membership: the blind control shift, AUC 0.695"
    )
    assert any("differ without the model" in caution for caution in found.cautions)


def test_an_attack_at_chance_leaves_no_evidence():
    found = report({"noise 2": NOISE[::-1]})
    assert not found.verdict.evidence
    assert "is not above chance" in found.verdict.text
    assert not any("differ without the model" in caution for caution in found.cautions)


def test_a_reversed_control_is_told():
    found = report(controls={"reversed": -SHIFT})
    assert any("in reverse" in caution for caution in found.cautions)


def test_verdicts_on_noise_are_seldom_evidence():
    rng = np.random.default_rng(5)
    member = np.arange(120) < 60
    wrong = 0
    for seed in range(25):
        scores = {name: rng.normal(size=120) for name in "abc"}
        found = membership_report(
            scores,
            member,
            controls={"blind": rng.normal(size=120)},
            key=jax.random.key(seed),
            num_resamples=200,
            fprs=(0.5,),
        )
        wrong += found.verdict.evidence
    assert wrong <= 3


def test_captions_bring_the_bag_of_words():
    texts = ["red car" if m else "blue sky" for m in MEMBER]
    found = report(controls=None, captions=texts)
    assert [f.name for f in found.controls] == ["bag of words"]
    assert found["bag of words"].auc.estimate == 1
    assert not found.verdict.evidence
    assert "the blind control bag of words" in found.verdict.text
    mixed = report(captions=list(np.random.default_rng(0).permutation(texts)))
    assert [f.name for f in mixed.controls] == ["noise", "bag of words"]
    assert mixed.verdict.evidence


def test_the_key_decides_the_resamples_alone(full):
    again = report({"strong": STRONG})
    assert again["strong"].auc == report({"strong": STRONG})["strong"].auc
    other = report({"strong": STRONG}, key=jax.random.key(1))["strong"].auc
    assert other.low != again["strong"].auc.low
    assert other.estimate == again["strong"].auc.estimate


BROKEN = STRONG.copy()
BROKEN[3] = np.nan


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (STRONG, {"controls": None}, "no blind control"),
        (STRONG, {"controls": {}}, "no blind control"),
        ({}, {}, "scores are empty"),
        ({"CSA": BROKEN}, {}, r"scores\['CSA'\] hold 1 NaN"),
        ({"CSA": np.where(MEMBER, np.inf, 0)}, {}, r"scores\['CSA'\] hold infinities"),
        ({"CSA": STRONG[:5]}, {}, r"scores\['CSA'\] are for 5 examples and is_member for 2400"),
        ({"CSA": STRONG[None, None]}, {}, r"scores\['CSA'\] has shape"),
        (STRONG, {"controls": {"blind": BROKEN}}, r"scores\['blind'\] hold 1 NaN"),
        ({"a": STRONG}, {"controls": {"a": NOISE}}, "'a' names two scores"),
        (
            {"bag of words": STRONG},
            {"captions": ["a b"] * N},
            "'bag of words' names two scores",
        ),
        (STRONG, {"captions": ["a"]}, "one for each example"),
        (STRONG, {"key": 0}, "key is int"),
        (STRONG, {"confidence": 95}, "confidence is 95"),
        (STRONG, {"num_resamples": 10}, "num_resamples is 10"),
        (STRONG, {"fprs": (0.0,)}, "rates lie above 0"),
        (STRONG, {"threshold_fpr": 0}, "between 0 and 1"),
        (STRONG, {"known_nonmembers": [np.nan]}, "NaN"),
        ({"a": STRONG}, {"known_nonmembers": {"b": NOISE}}, "differ in 'a'"),
        ({"a": STRONG, "b": NOISE}, {"known_nonmembers": NOISE}, "one array for 2 attacks"),
    ],
)
def test_bad_input(scores, options, message):
    with pytest.raises(InputError, match=message):
        report(scores, **options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (MEMBER.astype(int), "a bool mask is needed"),
        (np.ones(N, bool), "all 2400 labels are positive"),
        (np.zeros(N, bool), "all 2400 labels are negative"),
        (MEMBER[:, None], r"\(2400,\) and \(2400, 1\)"),
        (np.arange(N) > 0, "one non-member"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(InputError, match=message):
        membership_report(STRONG, labels, controls={"noise": NOISE}, key=jax.random.key(0))
