import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.mislabelled_sets import KINDS, draw, sets
from benchmarks.tables_mislabelled import mislabelled_table, verdict


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_apart_and_the_noise_is_of_its_rate(kind):
    data = sets()["digits"]
    case = draw(data, kind, 0.2, 0)
    assert abs(case.truth.is_flipped.mean() - 0.2) < 0.01
    parts = [part["features"] for part in (case.train, case.trusted, case.test)]
    assert [len(part) for part in parts] == [300, 60, 300]
    rows = np.concatenate(parts)
    # the digits hold no duplicates: what is equal would be one row in two parts
    assert len(np.unique(rows, axis=0)) == len(rows)
    again = draw(data, kind, 0.2, 0)
    np.testing.assert_array_equal(case.train["y"], again.train["y"])
    other = draw(data, kind, 0.2, 1)
    assert not np.array_equal(case.train["features"], other.train["features"])


def entry(aucs, trusted, forward_only):
    auc = {"mean": float(np.mean(aucs)), "raw": aucs}
    return {"auc": auc, "trusted": trusted, "forward_only": forward_only}


def test_the_verdict_compares_the_best_of_each_kind_by_seed():
    row = {
        "set": "s",
        "kind": "symmetric",
        "rate": 0.2,
        "methods": {
            "trusted_consensus": entry([0.9, 0.8], True, True),
            "trusted_jvp": entry([0.5, 0.5], True, True),
            "trusted_grad_cos": entry([0.7, 0.7], True, False),
            "knn_shapley": entry([0.95, 0.95], True, None),
            "consensus": entry([0.6, 0.6], False, True),
            "loss": entry([0.5, 0.5], False, True),
        },
    }
    said = verdict(row)
    assert "ours is consensus with the trusted set, 0.850" in said
    assert "grad-cos (+0.150," in said
    assert "KNN-Shapley (-0.100," in said
    assert "without, ours is consensus, 0.600, against baseline training loss (+0.100," in said


@pytest.mark.slow
def test_the_script_runs(tmp_path):
    output = tmp_path / "mislabelled.json"
    command = [sys.executable, "-m", "benchmarks.mislabelled", "--quick", "--output", str(output)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, timeout=900)
    document = json.loads(output.read_text())
    row = document["results"][0]
    assert row["methods"]["out_of_fold_logistic"]["auc"]["mean"] > 0.9
    np.testing.assert_allclose(
        row["methods"]["trusted_jvp"]["auc"]["raw"],
        row["methods"]["trusted_grad_dot"]["auc"]["raw"],
        atol=1e-3,
    )
    assert set(row["gains"]) > {"(the truth)", "(nothing done)", "loss"}
    assert "| KNN-Shapley |" in mislabelled_table(document)
