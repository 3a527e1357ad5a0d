"""How settings of the memorisation benchmark are chosen, and that it runs."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.memorisation_truth import Truth
from benchmarks.tables_memorisation import chosen, frontier, memorisation_table, verdict
from jaxinf.applications.memorisation import RetrainedOutputs
from jaxinf.evaluation import spearman
from jaxinf.influence.ground_truth import draw_subsets


def row(method, setting, models, cost, agreement):
    interval = {"estimate": agreement, "low": agreement - 0.01, "high": agreement + 0.01}
    return {
        "method": method, "setting": setting, "models": models, "training": cost, "scoring": 0.0,
        "spearman_right": interval, "spearman_p": interval, "precision": {"estimate": 0.5},
    }  # fmt: skip


DEVELOPMENT = [
    row("loss", "short", 1, 1.0, 0.5),
    row("loss", "long", 1, 2.0, 0.4),  # dearer and worse
    row("loss", "long", 2, 4.0, 0.7),
    row("step", "rate 1", 1, 1.0, 0.6),
    row("step", "rate 2", 1, 1.0, 0.3),
]


def test_settings_are_chosen_in_development_and_quoted_from_the_report():
    assert frontier(DEVELOPMENT) == {("loss", "short"), ("loss", "long"), ("step", "rate 1")}
    report = [
        row("loss", "short", 1, 1.0, 0.2),
        row("loss", "long", 1, 2.0, 0.9),  # not chosen, however good it is here
        row("loss", "long", 2, 4.0, 0.8),
        row("step", "rate 1", 1, 1.0, 0.75),
    ]
    of_set = {
        "development": {"rows": DEVELOPMENT},
        "report": {"rows": report, "truth_training": 2000.0, "truth_scoring": 0.0},
    }
    kept = {method: [r["setting"] for r in rows] for method, rows in chosen(of_set).items()}
    assert kept == {"loss": ["short", "long"], "step": ["rate 1"]}
    assert [r["models"] for r in chosen(of_set)["loss"]] == [1, 2]
    said = verdict(of_set)
    # of the two methods that 1 run pays for, development prefers step
    assert "at 1/2000 step (rate 1), 0.750" in said
    assert "at 1/500 loss (long), 0.800" in said
    assert "cheapest to reach 0.7 with its whole interval is step, at 1/2,000" in said


def test_judging_against_the_truth():
    rng = np.random.default_rng(0)
    masks = draw_subsets(60, 40, fraction=0.7, seed=0)
    chance = np.where(masks, 0.9, rng.random(40))
    found = RetrainedOutputs(masks, rng.random((60, 40)) < chance, chance.astype(np.float32))
    truth = Truth(found, seed=0, num_resamples=20)
    assert len(truth.top) == 4
    scores = np.stack([truth.scores["p"], rng.normal(size=40)])
    judged = truth.judge(scores)
    for kind in ("right", "p"):
        expected = [spearman(s[None], truth.scores[kind][None])[0] for s in scores]
        np.testing.assert_allclose(judged[f"spearman_{kind}"]["raw"], expected, rtol=1e-6)
    assert judged["spearman_p"]["raw"][0] == pytest.approx(1)
    assert judged["spearman_p"]["low"] < judged["spearman_p"]["high"]


@pytest.mark.slow
def test_memorisation_quick(tmp_path):
    output = tmp_path / "memorisation.json"
    command = [sys.executable, "-m", "benchmarks.memorisation", "--quick", "--output", output]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_text())
    of_set = document["results"]["digits"]
    assert of_set["development"]["complete"]
    assert of_set["report"]["complete"]
    tried = {(r["method"], r["setting"]) for r in of_set["development"]["rows"]}
    ran = {(r["method"], r["setting"]) for r in of_set["report"]["rows"]}
    assert ran == frontier(of_set["development"]["rows"]) <= tried
    assert [r["removed"] for r in of_set["report"]["removal"]][:2] == [0.0, 0.1]
    text = memorisation_table(document)
    assert "methods and settings chosen on the development part" in text
    assert "Test accuracy after removal" in text
