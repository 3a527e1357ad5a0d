import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.clip import _other_tasks, flops_per_image, flops_per_text
from benchmarks.common import ROOT
from benchmarks.membership_sets import MEMBER_SHARE, SHARES, deal, scenes
from benchmarks.membership_store import Store, summary
from benchmarks.membership_trials import Settings, similarity
from benchmarks.tables_membership import clip_table, membership_table


def test_whole_groups_are_dealt_out_by_their_shares():
    groups = np.random.default_rng(0).integers(0, 400, 2000)
    parts = deal(groups, SHARES, 1)
    every = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(every), np.arange(2000))
    for name, rows in parts.items():
        assert abs(len(rows) / 2000 - SHARES[name]) < 0.03
        others = np.setdiff1d(np.arange(2000), rows)
        assert not set(groups[rows]) & set(groups[others])
    again = deal(groups, SHARES, 2)
    assert set(again["others"]) != set(parts["others"])
    for seed in range(5):
        cut = deal(groups, SHARES, seed, keep=0.95)
        assert [len(rows) for rows in cut.values()] == [475, 237, 475, 118, 237, 356]


def test_a_set_has_the_members_asked_for():
    pairs = scenes(60, 0)
    assert round(len(pairs.captions) * MEMBER_SHARE) == 60
    assert pairs.tokens.max() < pairs.config.text.vocab_size


def test_similarity_is_that_of_the_halves():
    features = np.array([[1.0, 0.0, 0.6, 0.8]])
    np.testing.assert_allclose(similarity(features), [0.6])


def test_operations_of_the_published_model():
    # FACTS: 8.82 + 5.96 GFLOP for B/32
    assert flops_per_image("base-32") / 1e9 == pytest.approx(8.82, rel=0.02)
    assert flops_per_text("base-32") / 1e9 == pytest.approx(5.96, rel=0.02)


def test_a_store_goes_on_from_its_trials_and_from_no_others(tmp_path):
    settings, path = {"members": 30}, tmp_path / "m.json"
    first = Store(path, settings, {}, fresh=False)
    assert first.chosen("digit scenes") is None
    chosen = Settings((1, 3), 0.3, -0.5)
    first.choose("digit scenes", 30, chosen, epochs=5)
    for seed, auc in enumerate((0.6, 0.7)):
        scores = {name: {"auc": auc, "tpr": None} for name in ("CSA", "blind")}
        first.add_trial("digit scenes", 5, seed, scores, controls=["blind"], seconds=1)
        first.add_growth(100, 2, seed, {"auc": auc, "gap": 0.1})
    again = Store(path, settings, {}, fresh=False)
    assert again.chosen("digit scenes") == chosen
    assert again.has_trial("digit scenes", 5, 1)
    assert not again.has_trial("digit scenes", 5, 2)
    assert not again.has_trial("emoji", 5, 1)
    assert again.has_growth(100, 2, 1)
    assert not again.has_growth(200, 2, 1)
    rows = {row["score"]: row for row in again.results["sets"][0]["rows"]}
    assert rows["CSA"]["auc"]["raw"] == [0.6, 0.7]
    assert [rows[name]["role"] for name in ("CSA", "blind")] == ["attack", "control"]
    assert again.results["growth"][0]["auc"]["mean"] == pytest.approx(0.65)
    with pytest.raises(SystemExit, match="holds trials of another members"):
        Store(path, {"members": 40}, {}, fresh=False)
    assert Store(path, {"members": 40}, {}, fresh=True).results["sets"] == []


def entry(*raw):
    return summary([{"auc": value} for value in raw], "auc")


def test_tables_say_who_gains_and_which_control_is_off_chance():
    def row(score, role, *raw):
        return {"epochs": 10, "score": score, "role": role, "auc": entry(*raw), "tpr": None}

    rows = [
        row("CSA", "attack", 0.70, 0.72),
        row("AEA", "attack", 0.71, 0.71),
        row("bag of words", "control", 0.60, 0.61),
        row("untrained encoder", "control", 0.45, 0.55),
    ]
    chosen = {"transformations": ["ColorJitter"], "weight": 0.1, "threshold_std": 0.0}
    one = {"set": "digit scenes", "members": 100, "chosen": chosen, "rows": rows}
    growth = [{"members": 500, "epochs": 10, "auc": entry(0.8, 0.8), "gap": entry(0.1, 0.1)}]
    results = {"sets": [one], "growth": growth}
    table = membership_table({"settings": {"seeds": 2}, "results": results})
    assert "AEA +0.000 at 10 epochs (ahead on 1 of 2)" in table
    assert "off chance: bag of words at 10 epochs." in table
    assert "| bag of words (blind) | 0.605 ±" in table
    assert "| 500 | 0.800 ± 0.000 | 0.1000 ± 0.0000 |" in table


def test_speed_table_has_the_ratio():
    def row(contender, rate):
        return {
            "task": "encode",
            "contender": contender,
            "precision": "float32",
            "batch_size": 64,
            "repeats": 5,
            "pairs_per_second": {"median": rate, "min": rate, "max": rate},
            "tflops": 0.1,
            "peak_share": 0.5,
            "first_call_s": 1.0,
        }

    settings = {"device": "cpu", "architecture": "base-32"}
    settings |= {"matmul_peak_flops": 3e11, "torch_matmul_peak_flops": 2e11}
    rows = [row("transformers", 10.0), row("transformers, compiled", 20.0), row("jaxinf", 30.0)]
    table = clip_table({"settings": settings, "results": rows})
    assert "jaxinf (float32) at 1.50× the best of PyTorch (transformers, compiled" in table
    assert "0.3 TFLOP/s; PyTorch's own product reaches 0.2 TFLOP/s" in table


def test_one_task_keeps_what_was_measured_of_the_other(tmp_path):
    settings = {"architecture": "tiny", "device": "cpu", "cores": 2, "quick": True}
    path = tmp_path / "clip_cpu_float32.json"
    old, new = [{"task": "encode", "n": 1}, {"task": "aea", "n": 1}], [{"task": "aea", "n": 2}]
    assert _other_tasks(path, settings, new) == []
    path.write_text(json.dumps({"settings": settings, "results": old}))
    assert _other_tasks(path, settings, new) == old[:1]
    assert _other_tasks(path, settings | {"cores": 4}, new) == []


def run(name, output):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--output", output]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_membership_benchmark_runs(tmp_path):
    run("membership", tmp_path / "out.json")
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    rows = {row["score"]: row for row in results["sets"][0]["rows"]}
    assert {"CSA", "AEA", "WSA", "bag of words", "another model's CSA"} <= set(rows)
    assert 0.3 < rows["bag of words"]["auc"]["mean"] < 0.7
    assert results["growth"][0]["members"] == 300


@pytest.mark.slow
def test_throughput_benchmark_runs(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    run("clip", tmp_path)
    results = json.loads((tmp_path / "clip_cpu_float32.json").read_text())["results"]
    assert {row["task"] for row in results} == {"encode", "aea"}
    assert {row["contender"] for row in results} == {"transformers", "jaxinf"}
