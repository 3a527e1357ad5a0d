import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.common import ROOT
from benchmarks.mirrored_groups import (
    KINDS,
    agreement,
    influences,
    make_experiment,
    reachable,
    subsets_of,
)
from benchmarks.mirrored_hypothesis import refreshed
from benchmarks.mirrored_masses import by_mass
from benchmarks.mirrored_plot import panels, plot
from benchmarks.tables_mirrored import mirrored_hypothesis_table, retraining_table
from jaxinf.evaluation import spearman
from jaxinf.influence.ground_truth import leave_one_out


def experiment(num_groups=6, group_size=10):
    rng = np.random.default_rng(0)
    part = lambda n: {
        "x": rng.normal(size=(n, 4)).astype(np.float32),
        "y": rng.integers(0, 3, n).astype(np.int32),
    }
    train = part(150)
    return train, make_experiment(train, part(20), num_groups, group_size, seed=1)


def test_wrong_labels_sweep_from_none_to_all():
    train, made = experiment()
    shares = {kind: made.wrong[made.groups[kind]].mean(axis=1) for kind in KINDS}
    np.testing.assert_allclose(shares["swept"], np.linspace(0, 1, 6), atol=0.051)
    assert not shares["clean"].any()
    assert set(made.groups["shuffled"].ravel()) == set(made.groups["swept"].ravel())
    np.testing.assert_array_equal(made.data["y"][:150] != train["y"], made.wrong)


def test_groups_are_left_out_and_the_test_set_joins():
    _, made = experiment()
    subsets = subsets_of(made, KINDS)
    assert subsets.shape == (2 + 3 * 6, 170)
    np.testing.assert_array_equal(subsets[:2].sum(axis=1), [150, 170])
    assert not subsets[2 + 6 + 4][made.groups["shuffled"][4]].any()
    assert (subsets[2:].sum(axis=1) == 140).all()


def test_influences_are_differences_of_mean_losses():
    _, made = experiment()
    losses = np.random.default_rng(2).random((20, 170))
    truth, mirror = influences(losses, made, KINDS)["shuffled"]
    assert truth[1] == pytest.approx(losses[9, 150:].mean() - losses[0, 150:].mean())
    rows = made.groups["shuffled"][1]
    assert mirror[1] == pytest.approx(losses[0, rows].mean() - losses[1, rows].mean())


def test_agreement_beyond_the_share():
    rng = np.random.default_rng(3)
    share = np.linspace(0, 1, 30)
    truth, mirror = (share + 0.05 * rng.normal(size=(4, 30)) for _ in range(2))
    found = agreement(truth, mirror, share)
    assert found["spearman"] > 0.95
    assert found["ceiling"] > found["seeds_agree"] > 0.8
    low, high = found["ceiling_interval"]
    assert low <= found["ceiling"] <= high
    # both follow the share and nothing else
    assert abs(found["given_share"]) < 0.6
    assert "given_share" not in agreement(truth, mirror, 0 * share)


def test_the_ceiling_is_what_the_expected_truth_reaches():
    rng = np.random.default_rng(4)
    expected = rng.normal(size=2000)
    truth = expected + 2 * rng.normal(size=(5, 2000))
    pair, ceiling = reachable(truth)
    assert pair == pytest.approx(0.2, abs=0.05)
    # a perfect score is above any one half against the rest, and at the ceiling
    reached = spearman(truth.mean(axis=0)[None], expected[None])[0]
    assert ceiling == pytest.approx(reached, abs=0.03)
    halves = spearman(truth[::2].mean(axis=0)[None], truth[1::2].mean(axis=0)[None])[0]
    assert ceiling > halves + 0.2
    # seeds that do not agree leave nothing to be predicted
    assert reachable(np.stack([expected, -expected]))[1] == 0


def test_a_symmetric_mirror_follows_leave_one_out_of_a_quadratic():
    problem, sample = quadratic(), np.arange(0, 40, 2)
    truth = leave_one_out(*problem, l2=0.1, rows=sample).influences
    rows = by_mass(problem, truth, sample, 0.5, l2=0.1)
    assert [row["form"] for row in rows] == ["added", "taken", "symmetric"]
    least = {row["form"]: min(row["pearson"]) for row in rows}
    assert least["symmetric"] > 0.9
    assert all(len(row["spearman"]) == 3 for row in rows)


def quadratic():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(43, 4)).astype(np.float32), rng.normal(size=43).astype(np.float32)
    part = lambda rows: {"x": x[rows], "y": y[rows]}
    loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
    return loss, np.zeros(4, np.float32), part(slice(40, None)), part(slice(40))


@pytest.mark.slow
def test_mirrored_benchmark_runs(tmp_path):
    command = [sys.executable, "-m", "benchmarks.mirrored_hypothesis", "--quick"]
    options = ["--output", str(tmp_path), "--plots", str(tmp_path)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, timeout=600)
    results = json.loads((tmp_path / "mirrored_hypothesis.json").read_text())["results"]
    first = results["convex"][0]
    assert first["largest_gradient_norm"] <= 1e-10
    assert min(first["pearson"]) > 0.9
    rows = {(row["model"], row["kind"]) for row in results["groups"]}
    assert rows == {(model, kind) for model in ("mlp", "cnn") for kind in KINDS}
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_a_run_that_is_resumed_keeps_what_it_has(tmp_path):
    kept = {"set": "digits", "weight_decay": 0.01, "draw": 0, "spearman": [0.5, 0.6]}
    groups = {"set": "digits", "model": "mlp", "train": 6000, "spearman": 0.5}
    groups = [groups | {"kind": kind} for kind in KINDS]
    document = {"results": {"convex": [kept], "groups": groups}}
    (tmp_path / "mirrored_hypothesis.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "benchmarks.mirrored_hypothesis", "--sets", "digits"]
    options = ["--weight-decays", "0.01", "--models", "mlp", "--resume", "--output", str(tmp_path)]
    subprocess.run([*command, *options], cwd=ROOT, check=True, timeout=60)
    assert json.loads((tmp_path / "mirrored_hypothesis.json").read_text()) == document


def test_figures_of_kept_losses_are_worked_out_anew():
    rng = np.random.default_rng(6)
    truth, share = rng.normal(size=(5, 30)), np.linspace(0, 1, 30)
    row = {"set": "mnist", "seeds": 5, "halves": 0.5, "pearson": 0.0}
    row |= {"truth": truth.tolist(), "mirror": truth.tolist(), "wrong_share": share.tolist()}
    found = refreshed(row)
    assert found["pearson"] == pytest.approx(1)
    assert found["ceiling"] == reachable(truth)[1]
    assert "halves" not in found
    assert refreshed({"spearman": 0.5}) == {"spearman": 0.5}


def test_the_table_of_masses():
    row = {"set": "mnist", "weight_decay": 0.01, "train": 4900, "left_out": 4900}
    each = {"added": 0.75, "taken": 0.25, "symmetric": 0.5}
    rows = [
        row | {"mass": mass, "form": form, "pearson": [p, p + 0.25], "spearman": [p, p]}
        for mass in (0.1, 1.0)
        for form, p in each.items()
    ]
    convex = row | {
        "draw": 0,
        "pearson": [0.99, 0.98],
        "spearman": [0.7, 0.9],
        "truth_per_mirror": [1.5, 1.25],
        "seconds": {"ratio_for_all": 63.2},
        "released_code": {"pearson": [0.9966, 0.9986], "spearman": [0.855, 0.941]},
    }
    results = {"convex": [convex], "masses": rows, "groups": []}
    page = mirrored_hypothesis_table({"results": results})
    cells = "0.7500, 0.8750 | 0.2500, 0.3750 | 0.5000, 0.6250 | 0.7500, 0.7500 | 0.2500, 0.2500"
    assert f"| MNIST (0.9966, 0.8550) | 1 | {cells} | 0.5000, 0.5000 |" in page
    assert page.index("| 1 | 0.75") < page.index("| 0.1 | 0.75")
    other = [row | {"draw": 2, "left_out": 1000} for row in rows if row["mass"] == 1]
    page = mirrored_hypothesis_table({"results": results | {"masses": rows + other}})
    assert f"| MNIST, draw 3, 1,000 left out | 1 | {cells} | 0.5000, 0.5000 |" in page


def test_the_tables_say_what_was_found():
    convex = {
        "set": "mnist",
        "weight_decay": 0.01,
        "draw": 0,
        "train": 4900,
        "left_out": 100,
        "pearson": [0.99, 0.98],
        "spearman": [0.7, 0.9],
        "truth_per_mirror": [1.5, 1.25],
        "seconds": {"ratio_for_all": 63.2},
        "released_code": {"pearson": [0.9966, 0.9986], "spearman": [0.855, 0.941]},
    }
    groups = {
        "set": "mnist",
        "model": "cnn",
        "epochs": 8,
        "train": 6000,
        "group_size": 100,
        "kind": "shuffled",
        "seeds": 5,
        "pearson": 0.5,
        "spearman": 0.25,
        "spearman_interval": [-0.1, 0.6],
        "wrong_share": [0.5] * 30,
        "seeds_agree": 0.5,
        "ceiling": 0.75,
        "ceiling_interval": [0.25, 0.875],
        "released_code": {"pearson": 0.9864, "spearman": 0.9915},
    }
    page = mirrored_hypothesis_table({"results": {"convex": [convex], "groups": [groups]}})
    assert "| 0.9800 to 0.9900 | 0.700 to 0.900 | 0.9966 to 0.9986, 0.855 to 0.941 |" in page
    assert "| 63× (from 100) |" in page
    assert (
        "| 30 of 100, the same examples at random | 5 | 0.500 | 0.250 (-0.100 to 0.600) |" in page
    )
    assert "0.9864" not in page  # its groups are swept
    swept = mirrored_hypothesis_table(
        {"results": {"convex": [convex], "groups": [groups | {"kind": "swept"}]}}
    )
    assert "| 0.500 | 0.750 (0.250 to 0.875) | 0.9864, 0.9915 |" in swept
    assert "draws of the" not in page
    other = convex | {"draw": 1, "pearson": [0.97, 0.995]}
    page = mirrored_hypothesis_table({"results": {"convex": [convex, other], "groups": []}})
    assert "2 draws of the training points (100, 100 left out), Pearson: 0.9800 to 0.9900; " in page
    assert page.count("| MNIST |") == 1
    rates = {("loop", None): 2.0, ("compiled", None): 4.0, ("vmap", 8): 40.0}
    contenders = [
        {"contender": name, "median": rate} | ({} if width is None else {"at_once": width})
        for (name, width), rate in rates.items()
    ]
    row = {"problem": "net", "train": 100, "epochs": 2, "batch": 5, "contenders": contenders}
    row |= {"vmap_per_loop": 20.0, "vmap_per_compiled": 10.0}
    assert "batch 5 | 2 | 4 | 40 | 20.0 | 10.0 |" in retraining_table(
        {"results": [row], "settings": {}}
    )


@pytest.mark.slow
def test_retraining_benchmark_runs(tmp_path):
    command = [sys.executable, "-m", "benchmarks.retraining", "--quick"]
    subprocess.run([*command, "--output", str(tmp_path)], cwd=ROOT, check=True, timeout=600)
    document = json.loads((tmp_path / "retraining.json").read_text())
    assert document["settings"]["mirror"]["ratio"] > 1
    assert document["results"][0]["vmap_per_loop"] > 1


def test_the_figure_has_a_panel_for_every_kind(tmp_path):
    groups = {"set": "mnist", "model": "cnn", "train": 3000}
    groups |= {"mirror": [[1.0, 2.0], [3.0, 4.0]], "truth": [[0.0, 1.0], [2.0, 3.0]]}
    results = {
        "convex": [{"set": "mnist", "worst_query": {"mirror": [1.0, 2.0], "truth": [2.0, 1.0]}}],
        "groups": [groups | {"kind": kind} for kind in ("swept", "shuffled", "clean")],
    }
    found = panels(results, "mnist")
    assert [title.split(", ")[1] for title in found] == ["logistic regression", "CNN", "CNN"]
    mirror, truth = found["MNIST, CNN, the same, at random"]
    # means over the seeds
    np.testing.assert_array_equal(mirror, [2.0, 3.0])
    np.testing.assert_array_equal(truth, [1.0, 2.0])
    assert panels(results, "fashion_mnist") == {}
    # networks side by side at the one size that both were run at
    mlp = [{**groups, "kind": "swept", "model": "mlp", "train": size} for size in (3000, 6000)]
    mlp[1]["mirror"] = [[9.0, 9.0]]
    both = panels(results | {"groups": results["groups"] + mlp}, "mnist")
    assert len(both) == 4
    np.testing.assert_array_equal(both["MNIST, MLP, wrong labels 0 to 100 %"][0], [2.0, 3.0])
    plot(tmp_path / "mirror.svg", results)
    assert (tmp_path / "mirror.svg").read_text().count("retrained without") == 1
