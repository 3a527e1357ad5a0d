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
    subsets_of,
)


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
    assert found["halves"] > 0.9
    # both follow the share and nothing else
    assert abs(found["given_share"]) < 0.6
    assert "given_share" not in agreement(truth, mirror, 0 * share)


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
