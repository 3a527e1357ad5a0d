"""The diffusion benchmark: what is known of its sets, and that it runs end to end."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.diffusion_less_control import less_control
from benchmarks.diffusion_methods import judge
from benchmarks.diffusion_models import QUICK, draw_set, load_images
from benchmarks.tables_diffusion import (
    development_table,
    diffusion_table,
    draws_table,
    less_control_table,
    paired,
)


def test_exemplars_are_held_out_and_hide_among_their_class(tmp_path):
    images = load_images(QUICK, tmp_path)
    chosen = draw_set(QUICK, images, 13)
    row_of = {image.tobytes(): row for row, image in enumerate(images["x"])}
    rows = np.array([row_of[image.tobytes()] for image in chosen.candidates["x"]])
    assert len(set(rows)) == QUICK.candidates
    assert set(images["y"][rows]) == {chosen.label} == {3}
    assert chosen.relevant.sum() == QUICK.exemplars
    assert (rows[chosen.relevant] < QUICK.held_out).all()
    # others that the base has not seen either, so that being unseen gives nothing away
    others = rows[~chosen.relevant]
    assert 0 < (others < QUICK.held_out).sum() < len(others)
    found = {image.tobytes() for image in chosen.candidates["x"][chosen.relevant]}
    assert found == {image.tobytes() for image in chosen.exemplars["x"]}


def test_figures_by_hand():
    relevant = np.zeros(30, bool)
    relevant[[4, 20]] = True
    tuned, base = np.arange(30.0), np.zeros(30)
    base[20:] = 100.0
    found = judge(np.stack([tuned, base]), relevant)
    # 20 is tenth from the top and 4 is 26th: precisions 1/10 and 2/26
    assert found["recall10"] == 0.5
    assert found["map"] == pytest.approx((1 / 10 + 2 / 26) / 2)
    # less 100 for the last ten, 4 is 16th and 20 is last
    assert found["recall10_contrast"] == 0.0
    assert found["map_contrast"] == pytest.approx((1 / 16 + 2 / 30) / 2)
    assert found["map_together"] == found["map"]


def test_differences_are_paired_by_model():
    row = {"at": "tuned", "recall10": 0.0, "map": 0.0}
    made = lambda number, kind, method, found: row | {
        "set": number, "kind": kind, "method": method,
        "recall10_contrast": found, "map_contrast": found,
    }  # fmt: skip
    raw = [
        made(number, kind, method, found + number)
        for number in range(3)
        for kind, method, found in (
            ("ours", "JVP", 0.5),
            ("ours", "finite step", 0.25),
            ("trivial", "pixels, nearest", 0.25),
        )
    ]  # fmt: skip
    said = "| pixels: pixels, nearest, tuned, contrast | +0.250 (+0.250 to +0.250) | "
    assert any(line.startswith(said) for line in paired(raw))
    assert paired([row for row in raw if row["kind"] != "ours"]) == []


@pytest.mark.slow
def test_quick_runs_end_to_end(tmp_path):
    # the tests compile far more than they compute
    env = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    common = ["--quick", "--no-progress", "--base", str(tmp_path / "b"), "--output", str(tmp_path)]
    for name in ("diffusion", "diffusion_draws"):
        command = [sys.executable, "-m", f"benchmarks.{name}", *common]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "diffusion.json").read_text())
    methods = {row["method"] for row in document["results"]["methods"]}
    assert {"pixels, nearest", "grad_cos", "JVP / loss"} <= methods
    # of another mean the trivial methods, which know of none, are not measured again
    command = [sys.executable, "-m", "benchmarks.diffusion", *common, "--resume", "--p-means", "0"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "diffusion.json").read_text())["results"]["rows"]
    assert rows[: len(document["results"]["rows"])] == document["results"]["rows"]
    more = rows[len(document["results"]["rows"]) :]
    assert {row["p_mean"] for row in more} == {0.0}
    assert {row["set"] for row in more} == {row["set"] for row in rows}
    table = diffusion_table(document)
    assert table.count("customised models; ln σ around -2.4.") == 1
    both = diffusion_table(json.loads((tmp_path / "diffusion.json").read_text()))
    assert both.count("| JVP / loss | ours | base |") == 2
    assert both.count("| pixels, nearest | trivial | none |") == 2
    assert "| JVP / loss | ours | base |" in table
    assert "Best of each kind. trivial: " in table
    draws = draws_table(json.loads((tmp_path / "diffusion_draws.json").read_text()))
    assert draws.count("\n| ") == 2
    assert list(tmp_path.glob("diffusion_*.png"))


def test_the_development_table_ranks_by_the_better_of_image_and_contrast():
    row = lambda method, p_mean, plain, contrast: {
        "method": method, "at": "tuned", "p_mean": p_mean, "map": {"estimate": plain},
        "map_contrast": {"estimate": contrast},
    }  # fmt: skip
    document = {
        "settings": {"strengths": [60], "size": 14, "device": "cpu"},
        "results": {
            "methods": [
                row("a", -1.2, 0.1, 0.7),
                row("b", -1.2, 0.5, 0.2),
                row("b", 0.0, 0.6, 0.3),
            ],
            "rows": [{"set": 1000}],
        },
    }
    lines = development_table(document).splitlines()[4:]
    assert lines == [
        "| a | tuned | contrast | 0.700 | – |",
        "| b | tuned | image | 0.500 | 0.600 |",
        "| b | tuned | contrast | 0.200 | 0.300 |",
        "| a | tuned | image | 0.100 | – |",
    ]


def test_what_a_control_finds_is_taken_off_by_model():
    row = lambda number, kind, method, found, mean=-1.2: {
        "set": number, "kind": kind, "method": method, "at": "tuned", "p_mean": mean,
        "map_contrast": found,
    }  # fmt: skip
    report = [
        *(row(number, "ours", "step", 0.75 + number / 8) for number in (0, 1, 2)),
        *(row(number, "gradient", "grad_cos", 0.5) for number in (0, 1)),
        row(0, "ours", "once", 0.5),
        row(1, "both models", "fall", 1.0, None),
    ]
    control = [
        *(row(number, kind, method, 0.25) for number in (0, 1) for kind, method in (
            ("ours", "step"), ("gradient", "grad_cos"), ("ours", "once")
        )),
        row(0, "ours", "step", 0.0, -2.4),
    ]  # fmt: skip
    found = {entry["method"]: entry for entry in less_control(report, control)}
    assert set(found) == {"step", "grad_cos"}  # of one model alone nothing can be said
    assert found["step"]["sets"] == [0, 1]
    assert found["step"]["raw"] == [0.5, 0.625]
    assert (found["step"]["report"], found["step"]["control"]) == (0.8125, 0.25)
    lines = less_control_table({"results": list(found.values())}).splitlines()
    assert lines[4].startswith("| -1.2 | step | ours | 2 | 0.812 | 0.250 | +0.562 (")
    assert lines[-1].startswith("- step at -1.2 less grad_cos at -1.2: +0.312 (")
