"""The demo's question of value: the figures are those of the library, the wrong labels are low."""

import numpy as np
import pytest

from jaxinf.cli.demonstration import Settings, train_subject
from jaxinf.cli.demonstration.values import value_the_data
from jaxinf.evaluation import detection_auc
from jaxinf.valuation import lava
from jaxinf.valuation.columns import raw_features


@pytest.fixture(scope="module")
def subject():
    return train_subject(Settings(seed=3, epochs=2, num_leaked=6, num_train=256), progress=False)


def test_lava_finds_the_planted_labels_and_the_section_says_how_well(subject):
    begun = []
    answer = value_the_data(subject, (), begun.append)
    assert len(begun) == 3
    want = lava(
        raw_features(subject.train["x"]),
        subject.train["y"],
        raw_features(subject.trusted["x"]),
        subject.trusted["y"],
    )
    np.testing.assert_allclose(answer.scores["lava"], want.values, rtol=1e-5, atol=1e-5)
    auc = detection_auc(-answer.scores["lava"], subject.is_wrong)
    assert auc > 0.7
    assert answer.results["LAVA"]["auc"] == auc
    assert f"{auc:.3f}" in answer.summary
    assert {len(values) for values in answer.scores.values()} == {256}
    assert len(answer.section.figures) == 3
    assert answer.results["KNN-Shapley"]["auc"] > 0.9
    worst = answer.section.strips[0].groups[0][1]
    values = answer.scores["lava"]
    lowest = np.argsort(values, kind="stable")[: len(worst)]
    assert [card.mark == "bad" for card in worst] == subject.is_wrong[lowest].tolist()
