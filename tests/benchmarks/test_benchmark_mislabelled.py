import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.mislabelled_kinds import INFLUENCE, PARTS, kind_of
from benchmarks.mislabelled_sets import KINDS, draw, sets
from benchmarks.tables_mislabelled import mislabelled_table
from benchmarks.tables_mislabelled_tally import tally, verdict
from jaxinf.applications.mislabelled import METHODS
from jaxinf.evaluation import mean_interval


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


def figure(values):
    interval = mean_interval(values)
    return {
        "mean": float(np.mean(values)),
        "raw": values,
        "interval": [interval.low, interval.high],
    }


def entry(aucs, trusted, forward_only):
    found = {name: figure(aucs) for name in ("auc", "average_precision", "found_at_true_count")}
    return found | {"trusted": trusted, "forward_only": forward_only}


def case(methods, rate=0.2):
    rates = ("true", "confident_joint", "mixture", "suggestion_right")
    return {
        "set": "s",
        "kind": "symmetric",
        "rate": rate,
        "methods": methods,
        "rates": {name: figure([0.1, 0.3]) for name in rates} | {"true": figure([0.2, 0.2])},
    }


def methods(**changed):
    found = {
        "trusted_consensus": entry([0.9, 0.8], True, True),
        "trusted_finite_loss": entry([0.8, 0.8], True, True),
        "trusted_jvp": entry([0.5, 0.5], True, True),
        "trusted_grad_cos": entry([0.7, 0.7], True, False),
        "knn_shapley": entry([0.95, 0.95], True, None),
        "consensus": entry([0.6, 0.6], False, True),
        "self_jvp": entry([0.4, 0.5], False, True),
        "gradient_norm": entry([0.55, 0.55], False, False),
        "loss": entry([0.5, 0.5], False, True),
    }
    return found | changed


def test_a_combination_is_ours_only_by_its_parts():
    for name, parts in PARTS.items():
        assert METHODS[name].summary == f"mean rank by {', '.join(parts)}"
    assert not set(PARTS["consensus"]) & set(INFLUENCE)
    assert kind_of("consensus", methods()["consensus"]) == "baseline"
    assert set(PARTS["trusted_consensus"]) & set(INFLUENCE)
    assert kind_of("trusted_consensus", methods()["trusted_consensus"]) == "ours"
    assert all(METHODS[name].forward_only for name in INFLUENCE)


def test_the_verdict_compares_the_best_of_each_kind_by_seed():
    said = verdict(case(methods()))
    assert "ours is consensus with the trusted set, 0.850" in said
    assert "grad-cos (+0.150," in said
    assert "KNN-Shapley (-0.100," in said
    assert "without, ours is gradient norm by JVPs, 0.450, against" in said
    # the difference of both seeds is that of the means; the baseline is the combination
    assert "the best gradient method gradient norm (-0.100," in said
    assert "the best baseline consensus (-0.150," in said


def test_the_tally_counts_cases_and_the_worst_difference():
    rows = [
        case(methods()),
        # by influence below gradients with a trusted set, level without; the sides are certain
        case(
            methods(
                trusted_finite_loss=entry([0.6, 0.6], True, True),
                trusted_consensus=entry([0.69, 0.69], True, True),
                self_jvp=entry([0.55, 0.55], False, True),
                consensus=entry([0.5, 0.5], False, True),
            ),
            rate=0.05,
        ),
    ]
    lines = tally(rows)
    start = lambda *cells: [line for line in lines if line.startswith(f"| {' | '.join(cells)} |")]

    (any_kind,) = start("use the trusted set", "forward-only, any kind (3)", "gradients (1)")
    assert "| 1 of 2 | 0 / 1 | -0.010 (s, symmetric, 5%: consensus with" in any_kind
    (influence,) = start("use the trusted set", "by influence (2)", "gradients (1)")
    assert "| 1 of 2 | 1 / 1 | -0.100 (s, symmetric, 5%: loss after" in influence
    name = "by influence, no loss added: minus influence, JVP"
    (alone,) = start("use the trusted set", name, "gradients (1)")
    assert "| 0 of 2 | 0 / 2 | -0.200 (s, symmetric, 20%: minus influence, JVP" in alone

    (any_kind,) = start("use none", "forward-only, any kind (3)", "gradients (1)")
    assert "| 2 of 2 | 1 / 0 | +0.000 (s, symmetric, 5%: gradient norm by JVPs" in any_kind
    name = "by influence: gradient norm by JVPs"
    (influence,) = start("use none", name, "gradients (1)")
    assert "| 1 of 2 | 0 / 0 | -0.100 (s, symmetric, 20%: gradient norm by JVPs" in influence
    # the combination of baselines stands on the other side
    (influence,) = start("use none", name, "baseline (2)")
    assert "| 1 of 2 | 1 / 0 | -0.150 (s, symmetric, 20%: gradient norm by JVPs" in influence
    assert "against consensus) |" in influence

    (pair,) = start(
        "one against one", "loss after finite steps on the trusted set", "training loss"
    )
    assert "| 2 of 2 | 2 / 0 | +0.100 (s, symmetric, 5%) |" in pair


def test_the_tables_print_kinds_intervals_and_what_a_choice_costs():
    # the half-width at two seeds: 12.706 times half their difference
    names = {"loss": entry([0.50, 0.51], False, True), "consensus": entry([0.7, 0.71], False, True)}
    rows = [case(methods(**names), rate) for rate in (0.2, 0.4)]
    table = mislabelled_table({"results": rows, "settings": {"seeds": 2}})
    assert "Student's t over 2 seeds" in table
    row = "| {} | {} | no | {} |"
    training = row.format("training loss", "baseline", "0.505 ± 0.064")
    consensus = row.format("consensus", "baseline, combined", "0.705 ± 0.064")
    # AUC, share found and average precision at 20 %, AUC at 40 %
    assert table.count(training) == table.count(consensus) == 4
    assert "| s | symmetric | 20.0% | 20.0% ± 127.1% |" in table
    assert "(1 of 4 by influence)" in table
    cost = "AUC behind the best of {} methods on each case"
    with_trusted, without = (table.split(cost.format(count))[1] for count in (9, 4))
    assert "| training loss | baseline | 0.445 (0.445) | 0.445 (0.445) |" in with_trusted
    assert "| consensus | baseline, combined | **0.000 (0.000)** | **0.000 (0.000)** |" in without


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
