import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.detection_corruptions import spoil
from benchmarks.detection_sets import benchmarks
from benchmarks.lava_contenders import make_inputs, marginal_error
from benchmarks.lava_detection import score
from benchmarks.lava_on_paper import MACHINES, Measured, estimate, measured_solvers, tensors
from benchmarks.tables_lava import (
    lava_contrast_table,
    lava_memory_table,
    lava_on_paper_table,
    lava_scale_table,
    lava_table,
)
from benchmarks.tables_lava_detection import lava_detection_table


def test_marginal_error_is_that_of_the_plan(tmp_path):
    make_inputs(tmp_path, size=20, width=4, classes=3)
    inputs = dict(np.load(tmp_path / "inputs.npz"))
    rng = np.random.default_rng(0)
    f, g = rng.normal(size=20), rng.normal(size=20)
    apart = ((inputs["x"][:, None].astype(float) - inputs["xv"][None]) ** 2).sum(-1) / 2
    cost = apart + inputs["table"][inputs["y"]][:, inputs["yv"]]
    plan = np.exp((f[:, None] + g[None] - cost) / float(inputs["e"])) / 400
    expected = np.abs(plan.sum(1) - 0.05).sum() + np.abs(plan.sum(0) - 0.05).sum()
    np.testing.assert_allclose(marginal_error(inputs, f, g), expected, rtol=1e-4)


def test_figures_of_merit_of_a_perfect_and_a_reversed_order():
    is_bad = np.arange(20) < 5
    perfect, reversed_order = np.where(is_bad, -1.0, 1.0), np.where(is_bad, 1.0, -1.0)
    assert score(perfect, is_bad) == {"auroc": 1.0, "at_true_count": 1.0, "f1": 1.0}
    assert score(reversed_order, is_bad) == {"auroc": 0.0, "at_true_count": 0.0, "f1": 0.0}


def test_tables_say_who_wins():
    def row(method, auroc):
        entry = {"mean": auroc, "raw": [auroc]}
        figures = dict.fromkeys(("auroc", "at_true_count", "f1"), entry)
        return figures | {"set": "digits", "corruption": "wrong labels", "method": method}

    document = {"settings": {"seeds": 1}}
    document["results"] = [row("lava", 0.9), row("knn-shapley", 0.95)]
    table = lava_detection_table(document)
    assert "digits (wrong labels): knn-shapley by 0.050" in table
    assert "**0.950 ± 0.000**" in table
    document["results"] = [row("lava", 0.4), row("knn-shapley", 0.3), row("lava, released", 0.5)]
    table = lava_detection_table(document)
    assert "| digits | 1 | 0.400 | 0.500 |  |" in table
    assert "in the mean of 0 of 1 sets. Cell by cell, it is behind in 1 of 1" in table
    behind = "| digits | wrong labels | 0.400 | 0.500 | lava, released | -0.100 |  |"
    assert behind in table
    assert (
        "Means below random: digits (wrong labels) 0.400. Of single draws, below 0.45: digits"
        in table
    )


def test_tables_say_whether_a_difference_is_one():
    def row(method, raw, interval):
        entry = {"mean": float(np.mean(raw)), "raw": raw, "interval": interval}
        figures = dict.fromkeys(("auroc", "at_true_count", "f1"), entry)
        return figures | {"set": "digits", "corruption": "wrong labels", "method": method}

    ours = row("lava", [0.48, 0.5], [0.40, 0.58])
    for interval, said in (([0.45, 0.69], "overlap"), ([0.59, 0.69], "apart")):
        rows = [ours, row("lava, released", [0.56, 0.58], interval)]
        table = lava_detection_table({"settings": {}, "results": rows})
        assert f"| -0.080 (-0.080 to -0.080) | {said} |" in table
    assert "below random: digits (wrong labels) 0.490 (0.400 to 0.580), which is chance." in table


def test_speed_table_has_the_ratio():
    def row(contender, kind, seconds):
        spread = {"median": seconds, "min": seconds, "max": seconds}
        return {
            "size": 100,
            "contender": contender,
            "kind": kind,
            "seconds": spread,
            "first_call_extra_s": 0.0,
            "marginal_error": None,
            "peak_bytes": 1 << 20,
        }

    rows = [row("geomloss", "solver", 8.0), row("jaxinf", "solver", 2.0)]
    rows += [row("released_lava", "pipeline", 9.0), row("jaxinf_lava", "pipeline", 3.0)]
    settings = {"width": 2, "classes": 2, "epsilon": "x", "cores": 1, "threshold": 1e-3}
    table = lava_table({"settings": settings, "results": rows})
    assert "jaxinf against geomloss: 4.0× at n = 100." in table
    assert "jaxinf_lava against released_lava: 3.0× at n = 100." in table


def test_sizes_that_lack_a_contender_claim_no_ratio():
    spread = {"median": 2.0, "min": 2.0, "max": 2.0}
    row = {"size": 7, "contender": "jaxinf", "kind": "solver", "seconds": spread}
    row |= {"first_call_extra_s": 0.0, "marginal_error": None, "peak_bytes": 1 << 20}
    settings = {"width": 2, "classes": 2, "epsilon": "x", "cores": 1, "threshold": 1e-3}
    table = lava_table({"settings": settings, "results": [row]})
    assert "| 7 | jaxinf | 2 (2–2) |  | 0.0" in table
    assert "against" not in table


def test_contrast_table_counts_what_is_under_random():
    rows = [
        {"set": name, "corruption": "wrong labels", "solver": "annealed", "unit": "mean cost"}
        | {"contrast": 0.25, "auroc": [auroc, auroc]}
        for name, auroc in (("digits", 0.9), ("trec", 0.4))
    ]
    table = lava_contrast_table({"settings": {"seeds": 2, "first_seed": 100}, "results": rows})
    assert "| annealed | 0.25 | mean cost | 0.650 | 0.650 | 0.400 | 1 of 2 |" in table
    assert "Left out" not in table
    rows.append(rows[0] | {"contrast": 0.0})
    table = lava_contrast_table({"settings": {"seeds": 2, "first_seed": 100}, "results": rows})
    assert "Left out, as some rows lack them: trec (wrong labels)." in table
    assert "| annealed | 0.25 | mean cost | 0.900 | 0.900 | 0.900 | 0 of 1 |" in table


def test_memory_and_estimates_as_tables():
    row = {"solver": "annealed", "rows": 1 << 18, "valid": 1024, "seconds": 2.0}
    row |= {"peak_bytes": 1 << 30}
    row |= {"iterations": 9, "converged": False, "auroc": 1.0}
    settings = {"width": 4, "classes": 2, "cores": 1}
    table = lava_memory_table({"settings": settings, "results": [row]})
    assert "| annealed | 262,144 | 1,024 | 1024 | 1024 | 2.0 | 9 | no | 1.000 |" in table


PIECES = Measured(1_280_000, 50_000, 512, 1000, 1.2e14, "annealed", 10, 1.4, 6.8, 16.0)


def test_estimates_as_tables():
    rows = [
        {"machine": name, "tensors": tensors(machine.devices, PIECES)} | estimate(machine, PIECES)
        for name, machine in MACHINES.items()
    ]
    settings = PIECES._asdict() | {"device": "one", "device_peak_bytes": 15e9}
    table = lava_on_paper_table({"settings": settings, "results": rows})
    assert "| annealed | 1 H200 (measured) | 0.55 s | 1.4 s | 0 s | 10 | 6.8 s | 21 s |" in table
    assert "| training features | 2,621.4 (1,280,000 × 512) | 41.0 (20,000 × 512) |" in table
    assert "not measured" in table


def test_estimates_by_hand():
    one, many, other = (estimate(machine, PIECES) for machine in MACHINES.values())
    product = 2 * 1_280_000 * 50_000 * 512
    assert one["floor"] == pytest.approx(product / 1.2e14)
    assert one["total"] == pytest.approx(10 * 1.4 + 6.8)
    assert many["reading"] == pytest.approx(1.4 / 64)
    # sixteen classes of a thousand on the fullest device
    assert many["labels"] == pytest.approx(6.8 * 0.016)
    assert many["reductions"] == pytest.approx(2 * (2 * 4 * 50_000 / 50e9 + 128 * 5e-6))
    # six bfloat16 products for one, at the share of the floor that was measured
    assert other["floor"] == pytest.approx(product * 6 / 8 / 197e12)
    assert other["reading"] == pytest.approx(other["floor"] / one["share_of_floor"])


def test_only_what_was_measured_to_the_end_is_taken():
    row = {"solver": "annealed", "route": "streamed", "checks": 1, "readings": 20}
    row |= {"reading_s": 1.0, "labels_s": 2.0, "first_call_s": 9.0, "seconds": 5.0}
    settings = {"n": 8, "m": 4, "width": 2, "classes": 2, "product_flops": 1.0}
    unfinished = {"solver": "balanced", "route": "streamed", "first_call_s": 9.0}
    (found,) = measured_solvers({"settings": settings, "results": [row, unfinished]})
    assert (found.readings, found.compiling) == (10, 4.0)


def test_every_corruption_keeps_rows_and_truth_together():
    digits = benchmarks()["digits"]
    for corruption in ("wrong labels", "one class too many", "poisoned, pixels"):
        sets = spoil(digits, corruption, seed=0)
        assert sets.x.shape == (len(sets.y), 64)
        assert sets.is_bad.shape == sets.y.shape
        assert 0 < sets.is_bad.mean() < 0.5
    sets = spoil(digits, "noisy supplier", seed=0)
    assert sets.source is not None
    assert sets.is_bad.tolist() == [True, False, False, False, False]


@pytest.mark.slow
def test_poisons_collide_in_the_features_that_are_valued():
    sets = spoil(benchmarks()["digits"], "poisoned", seed=0)
    target = sets.x[np.flatnonzero(sets.y == 1)[0]]
    away = np.linalg.norm(sets.x - target, axis=1)
    of_class = sets.y == 0
    assert (sets.y[sets.is_bad] == 0).all()
    assert away[sets.is_bad].max() < away[of_class & ~sets.is_bad].min()


@pytest.mark.slow
def test_memory_benchmark_runs(tmp_path):
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.lava_memory", "--quick", "--output", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = json.loads(output.read_text())["results"]
    assert [row["converged"] for row in rows] == [False, False, True, True]
    assert all(row["auroc"] > 0.9 for row in rows)


@pytest.mark.slow
def test_scale_benchmark_runs(tmp_path):
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.lava_scale", "--quick", "--output", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    document = json.loads(output.read_text())
    rows = document["results"]
    assert [row["converged"] for row in rows] == [False, False, True]
    assert all(row["log_sum_error"] < 1e-4 for row in rows)
    assert rows[0]["wrong_labels_auroc"] > 0.99
    assert rows[1]["off_first_route"] < 1e-4
    assert "| annealed | kernel |" in lava_scale_table(document)


@pytest.mark.slow
def test_detection_benchmark_runs(tmp_path):
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.lava_detection", "--quick", "--output", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = json.loads(output.read_text())["results"]
    found = {(row["corruption"], row["method"]): row["auroc"]["mean"] for row in rows}
    # what the documentation promises of the default
    assert found["wrong labels", "lava"] >= 0.985
    assert found["noisy features", "lava"] > 0.99
    assert 0.4 < found["wrong labels", "random"] < 0.6


@pytest.mark.slow
def test_transport_benchmark_runs(tmp_path):
    pytest.importorskip("geomloss")
    pytest.importorskip("ot")
    output = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.lava", "--quick", "--output", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = json.loads(output.read_text())["results"]
    assert all(row["marginal_error"] <= 1.2e-3 for row in rows if row["kind"] == "solver")
