import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import leakage_kinds
from benchmarks.common import ROOT
from benchmarks.leakage_figures import STATISTICS, condensed, measure, summarise
from benchmarks.leakage_methods import Scores, whitened
from benchmarks.leakage_subjects import Subject
from benchmarks.tables_leakage_kinds import leakage_development_table, leakage_kinds_table
from jaxinf import attribute
from jaxinf.applications.leakage import leak_statistics, reference_influence

KINDS = ("exact", "relabelled")


def subject(copies=20, clean=60):
    """Only what `measure` reads of one."""
    kind = np.array([""] * 2 * clean + ["exact"] * copies + ["relabelled"] * copies)
    source = np.r_[np.full(2 * clean, -1), np.arange(2 * copies)]
    parts = {
        "reference": np.arange(0),
        "calibration": np.arange(clean),
        "clean": np.arange(clean, 2 * clean),
        "copies": np.arange(2 * clean, len(kind)),
    }
    return Subject(*[None] * 4, kind, source, parts, *[None] * 6)


def scores(of, strength):
    rng = np.random.default_rng(0)
    found = rng.normal(size=(len(of.source), 50))
    copies = np.flatnonzero(of.source >= 0)
    found[copies, of.source[copies]] = np.where(of.kind[copies] == "exact", strength, -strength)
    return Scores("a method", "forward", np.arange(len(found)), found)


def test_figures_of_a_method_that_finds_all_and_of_one_that_finds_nothing():
    of = subject()
    runs = [measure(scores(of, 50.0), of, KINDS)]
    found = summarise(runs, KINDS)
    assert found["ranking"] == "absolute"  # the relabelled are found at the other end
    assert found["top1"]["all"]["estimate"] == 1
    assert found["opposed"] == {"exact": 0.0, "relabelled": 1.0}
    assert found["statistic"].endswith("absolute")
    assert found["auroc"]["all"]["estimate"] == found["power"]["all"]["estimate"] == 1
    assert found["false"]["estimate"] <= 0.2
    nothing = summarise([measure(scores(of, 0.0), of, KINDS)], KINDS)
    assert nothing["top1"]["all"]["estimate"] < 0.2
    assert abs(nothing["auroc"]["all"]["estimate"] - 0.5) < 0.2


def test_methods_without_clean_queries_are_ranked_only():
    of = subject()
    rows = np.flatnonzero(of.kind != "")
    found = Scores("a method", "forward", rows, scores(of, 9.0).scores[rows])
    assert "auroc" not in summarise([measure(found, of, KINDS)], KINDS)


def test_decisions_are_of_the_draws_that_have_clean_queries():
    of = subject()
    full = scores(of, 50.0)
    copies = np.flatnonzero(of.kind != "")
    few = Scores(full.method, full.family, copies, full.scores[copies])
    ranked, judged = measure(few, of, KINDS), measure(full, of, KINDS)
    for runs in ([ranked, judged], [judged, ranked]):
        found = summarise(runs, KINDS)
        assert found["judged"] == 1
        assert len(found["top1"]["all"]["raw"]) == 2
        assert found["auroc"] == summarise([judged], KINDS)["auroc"]
        assert "low" not in found["auroc"]["all"]


@pytest.mark.parametrize("width", [12, 15, 50])
def test_twelve_scores_have_the_statistics_of_all(width):
    all_scores = np.random.default_rng(0).normal(size=(9, width))
    for name, options in STATISTICS.items():
        if name.startswith("ratio"):
            continue
        kept = condensed(all_scores, options["signed"])
        expected = leak_statistics(all_scores, **options).statistic
        np.testing.assert_allclose(leak_statistics(kept, **options).statistic, expected)


def test_whitening_afterwards_is_that_of_the_attributor():
    rng = np.random.default_rng(0)
    loss = lambda w, batch: (batch["x"] @ w["a"] + w["b"] - batch["y"]) ** 2
    draw = lambda n: {
        "x": rng.normal(size=(n, 5)).astype(np.float32), "y": rng.normal(size=n).astype(np.float32)
    }  # fmt: skip
    params = {"a": rng.normal(size=5).astype(np.float32), "b": np.float32(0.3)}
    train, queries, reference = draw(16), draw(3), draw(4)
    method = reference_influence(loss, reference)
    expected = attribute(method, params, queries, train, diagnostics=False, progress=False).scores

    def unit(batch):
        error = 2 * (batch["x"] @ params["a"] + params["b"] - batch["y"])[:, None]
        return np.concatenate([error * batch["x"], error], axis=1)

    q, r, g = unit(queries), unit(reference), unit(train)
    q, r = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, r))
    found = whitened(q @ g.T, r @ g.T, q @ r.T, r @ r.T)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_kept_figures_are_written_without_another_draw(tmp_path):
    of = subject()
    figures = measure(scores(of, 50.0), of, leakage_kinds.KINDS[:1])
    figures |= {"method": "a method", "family": "forward", "seconds": 1.0, "seed": 0}
    for name in leakage_kinds.KINDS:
        for half in ("development", "report"):
            for sign in ("signed", "absolute"):
                figures["hits"][half][sign][name] = [1.0, 1.0]
        figures["opposed"][name] = 0.0
    figures["decisions"] = {}
    raw = tmp_path / "raw.json"
    kept = {"runs": {"digits": {"a method": [figures]}}, "fits": {"digits": {"0": {}}}}
    raw.write_text(json.dumps(kept))
    command = [sys.executable, "-m", "benchmarks.leakage_kinds", "--seeds", "0", "--raw", raw]
    done = subprocess.run(
        [*command, "--output", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "leakage_kinds.json").read_text())["results"]
    assert [(row["method"], row["seeds"]) for row in found["methods"]] == [("a method", 1)]


@pytest.mark.slow
def test_leakage_kinds_quick(tmp_path):
    command = [sys.executable, "-m", "benchmarks.leakage_kinds", "--quick", "--output", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    document = json.loads((tmp_path / "leakage_kinds.json").read_text())
    (found,) = document["results"]
    names = [row["method"] for row in found["methods"]]
    assert len(names) == len(set(names)) == 20
    pixels = found["methods"][0]
    assert (pixels["method"], pixels["top1"]["exact"]["estimate"]) == ("pixels", 1.0)
    assert pixels["top1"]["relabelled"]["estimate"] == 1.0
    text = leakage_kinds_table(document)
    assert all(f"| {name}" in text for name in names)
    assert "Best gradient baseline" in text


@pytest.mark.slow
def test_a_costly_method_alone_joins_what_is_kept(tmp_path):
    raw = tmp_path / "raw.json"
    command = [sys.executable, "-m", "benchmarks.leakage_kinds", "--quick", "--raw", raw]
    command += ["--probes", "0", "--output", tmp_path, "--costly"]
    names = []
    for costly in ([], ["finite step, lr 1"], ["finite step, lr 1"]):
        done = subprocess.run(
            [*command, *costly], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        names.append([*json.loads(raw.read_text())["runs"]["digits"]])
    assert names[1] == names[2] == [*names[0], "finite step, lr 1", "finite step, lr 1 / loss"]
    assert "-- digits" not in done.stderr  # nothing was missing the third time


def test_the_table_of_development_marks_the_best_statistic():
    power = {"top": {"estimate": 0.25}, "gap to 3rd, absolute": {"estimate": 0.5}}
    top1 = {"estimate": 0.75, "low": 0.5, "high": 1.25}
    document = {
        "settings": {
            "seeds": [7, 8],
            "statistics": ["top", "ratio to 2nd", "gap to 3rd, absolute"],
        },
        "results": [{"scores": "grad_cos", "top1": top1, "power": power}],
    }
    text = leakage_development_table(document)
    assert "| top | 0.25 |\n| gap to 3rd, absolute | **0.50** |" in text
    assert "| 0.75 (0.50–1.00) |" in text
    assert "ratio" not in text
