"""The demo's question of membership: an honest judgement, and the illusion."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxinf.cli.demonstration.membership import find_members
from jaxinf.evaluation.roc import roc_auc


@pytest.fixture(scope="module")
def asked():
    begun = []
    subject = SimpleNamespace(seed=0, train={"y": np.zeros(320)})
    return find_members(subject, (), begun.append), begun


def test_members_of_one_distribution_are_told_by_the_model_alone(asked):
    answer, begun = asked
    assert len(begun) == 4
    same = answer.results["same_distribution"]
    assert same["evidence"] is True
    assert same["CSA"]["auc_interval"][0] > 0.5
    for control in ("bag of words", "untrained encoder"):
        assert same[control]["auc_interval"][0] < 0.5
    member = answer.scores["same/is_member"]
    assert float(roc_auc(answer.scores["same/CSA"], member)) == pytest.approx(
        same["CSA"]["auc"], abs=1e-6
    )
    assert member.sum() == 160


def test_the_illusion_is_called_one(asked):
    answer, _ = asked
    other = answer.results["other_distribution"]
    # the attack looks like one, and the captions alone do better
    assert other["CSA"]["auc_interval"][0] > 0.5
    assert other["bag of words"]["auc"] > other["CSA"]["auc"]
    assert other["evidence"] is False
    assert other["verdict"].startswith("no evidence of membership: the blind control")
    text = " ".join(answer.section.text)
    assert "No evidence of membership" in text
    assert "the sets differ without the model" in text.lower()
    assert {"CSA", "AEA", "WSA"} < set(other)


def test_members_score_the_same_in_both_judgements(asked):
    answer, _ = asked
    for name in ("CSA", "AEA", "WSA"):
        same, other = (answer.scores[f"{kind}/{name}"][:160] for kind in ("same", "other"))
        np.testing.assert_array_equal(same, other)
