import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import lds, lds_peers
from benchmarks.common import ROOT
from benchmarks.lds_contenders import Decayed, chosen_settings, methods
from benchmarks.lds_data import Size
from benchmarks.lds_methods import Method, influence_of
from benchmarks.lds_plot import COLOURS
from benchmarks.lds_run import Bank, scored
from benchmarks.lds_sets import (
    REDUCED,
    Problem,
    loss_at,
    make_problem,
    train_models,
    truth,
)
from benchmarks.tables_lds import lds_settings_table, lds_table
from jaxinf import attribute
from jaxinf.influence import early_ensemble


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem("mnist_mlp", Size(48, 5, 4, 2, reduced=True), quick=True)


def test_the_two_parts_share_no_example():
    size = Size(60, 20, 4, 2, reduced=True)
    report, development = (
        make_problem("mnist_lr", size, part, quick=True) for part in ("report", "development")
    )
    for side in ("train", "queries"):
        rows = [{a.tobytes() for a in getattr(part, side)["x"]} for part in (report, development)]
        assert not rows[0] & rows[1]


def test_a_model_of_fewer_epochs_is_a_checkpoint_of_the_same_run(problem):
    """Training two epochs is training one and then the second: what TracIn is billed for."""
    masks, key = np.ones((2, 48), bool), jax.random.key(3)
    one, two = (train_models(problem, masks, key, epochs)[0]["linear"]["bias"] for epochs in (1, 2))
    more = train_models(problem, masks[:1], key, 1)[0]["linear"]["bias"]
    np.testing.assert_allclose(more[0], one[0], rtol=1e-5, atol=1e-7)
    assert np.abs(two - one).max() > 1e-4


def test_truth_is_kept_and_resumed(problem, tmp_path):
    masks, outputs = truth(problem, "report", tmp_path)
    assert outputs.shape == (2, 4, 5)
    assert (masks.sum(axis=1) == 24).all()
    stored = sorted(path.name for path in tmp_path.iterdir())
    np.testing.assert_array_equal(truth(problem, "report", tmp_path)[1], outputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == stored
    assert np.abs(outputs[0] - outputs[1]).max() > 0  # the seeds differ


def test_weighted_scores_are_those_of_the_early_ensemble(problem):
    bank = Bank(problem, "report", None)
    method = Method(
        "", "", influence_of("woodbury", 1.0, weighted=True), (1,), (1, 2), weighted=True
    )
    found = {count: scores for count, scores, _ in scored(method, bank)}
    params, state = bank.models(1, 2)
    combined = early_ensemble(loss_at(problem, {}), num_models=2)
    models = jax.tree.map(jnp.asarray, params)
    expected = attribute(combined, models, problem.queries, problem.train, progress=False).scores
    assert not state
    np.testing.assert_allclose(found[2], expected, rtol=2e-3, atol=2e-5 * np.abs(expected).max())
    assert np.corrcoef(found[1].ravel(), expected.ravel())[0, 1] < 0.99


@pytest.mark.parametrize("weighted", [True, False])
def test_the_gram_matrix_alone_gives_the_forward_only_scores(problem, weighted):
    """Directions by Woodbury's identity and a JVP per example, or products of gradients alone."""
    bank = Bank(problem, "report", None)
    make = influence_of("woodbury", 1.0, weighted=weighted)
    forward, gram = (
        Method("", "", make, (1,), weighted=weighted, power=0.7, gram=damping)
        for damping in (None, 1.0)
    )
    ((_, expected, _),) = scored(forward, bank)
    ((_, found, _),) = scored(gram, bank)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5 * np.abs(expected).max())


def test_agreement_of_independent_noise():
    rng = np.random.default_rng(0)
    signal, noise = rng.normal(size=(1, 400, 20)), rng.normal(size=(3, 400, 20))
    found = lds.agreement(signal + noise)
    # the correlation of two is 1/2, that of the signal with their mean sqrt(3/4)
    assert found["seeds"] == pytest.approx(0.5, abs=0.03)
    assert found["ceiling"] == pytest.approx(np.sqrt(3 / 4), abs=0.03)


@pytest.mark.parametrize("name", ["mnist_lr", "mnist_mlp", "cifar2_resnet9", "shakespeare"])
def test_twins_in_torch_compute_the_same_outputs(name):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_models

    problem = make_problem(name, Size(32, 4, 2, 1, width=8, reduced=True), quick=True)
    params, state = train_models(problem, np.ones((2, 32), bool), jax.random.key(0), 1)
    second = {path: a[1] for path, a in lds_peers.weights(params, state).items()}
    made = lds_peers.twin(problem)
    network = getattr(torch_models, made["kind"])(**made["sizes"])
    torch_models.load_flax(network, second)
    x = torch.from_numpy(problem.queries["x"])
    if made["kind"] == "MLP":
        x = x.flatten(1)
    elif made["kind"] == "ResNet9":
        x = x.permute(0, 3, 1, 2)
    with torch.no_grad():
        found = network(x).numpy()
    one = jax.tree.map(lambda a: a[1], {"params": params, **state})
    expected = problem.module.apply(one, problem.queries["x"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_measured_again_replace_what_was_there(tmp_path):
    row = lambda name, figure: {
        "source": "jaxinf", "method": name, "models": 1, "lds": {"estimate": figure},
    }  # fmt: skip
    path = tmp_path / "lds.json"
    first = {"size": {"train": 3}, "rows": [row("a", 0.1), row("b", 0.2)]}
    path.write_text(json.dumps({"results": {"sets": {"x": first}}}))
    found = lds.merged(path, "x", {"size": {"train": 3}, "rows": [row("b", 0.3), row("c", 0.4)]})
    figures = {r["method"]: r["lds"]["estimate"] for r in found["x"]["rows"]}
    assert figures == {"a": 0.1, "b": 0.3, "c": 0.4}
    other = lds.merged(path, "x", {"size": {"train": 4}, "rows": [row("c", 0.4)]})
    assert [r["method"] for r in other["x"]["rows"]] == ["c"]


def test_of_a_peers_settings_the_best_is_shown():
    rows = [{"method": "m", "models": 1, "lds": {"estimate": f}} for f in (0.1, 0.3, 0.2)]
    assert [row["lds"]["estimate"] for row in lds_peers.chosen(rows)] == [0.3]


def test_methods_have_names_of_their_own_and_a_colour(problem):
    for name, reduced in itertools.product(REDUCED, (False, True)):
        size = problem.size._replace(reduced=reduced)
        listed = methods(problem._replace(name=name, size=size))
        assert {method.family for method in listed} <= set(COLOURS)
        runs = [(method.name, count) for method in listed for count in method.counts]
        assert len(set(runs)) == len(runs)
        # forward-only means what the page says of it
        by_gradients = [m for m in listed if m.name.startswith(("TracIn", "grad-", "TRAK"))]
        assert not any(method.forward_only for method in by_gradients)


def test_the_table_says_what_was_reduced():
    rows = [
        {
            "method": "ours", "source": "jaxinf", "forward_only": True, "models": 16, "epochs": [1],
            "training": 0.8, "seconds": 12.0, "flops": 2e12,
            "lds": {"estimate": 0.65, "low": 0.6, "high": 0.7},
        }
    ]  # fmt: skip
    found = {
        "size": REDUCED["shakespeare"]._asdict(),
        "epochs": 20,
        "output": "loss",
        "agreement": {"seeds": 0.5, "ceiling": 0.8},
        "full_run_flops": 1e12,
        "rows": rows,
        "published": lds_peers.published("shakespeare"),
    }
    table = lds_table({"results": {"sets": {"shakespeare": found}}})
    assert "**Reduced size.**" in table
    assert "| ours † | 16 × 1 | 0.8 | 12 | 2 | 0.650 (0.600–0.700) |" in table
    assert "TRAK (50) 0.225" in table


def test_the_large_sets_take_what_their_development_part_found_best(problem, tmp_path):
    path = tmp_path / "lds_settings.json"
    row = lambda epochs, models, damping, found, **more: {
        "epochs": epochs, "decay": True, "models": models, "training": models * epochs / 20,
        "damping": damping, "power": 0.7, "lds": found,
    } | more  # fmt: skip
    rows = [
        row(4, 5, 1.0, 0.3),
        row(10, 2, 3.0, 0.4),
        row(10, 5, 3.0, 0.6),  # dearer than one full run
        row(20, 1, 3.0, 0.7, decay=False),  # its learning rate does not fall
    ]
    size = REDUCED["shakespeare"]._asdict()
    document = {"results": [{"set": "shakespeare", "size": size, "rows": rows}]}
    path.write_text(json.dumps(document))
    assert chosen_settings("shakespeare", path) == Decayed(10, 3.0, 0.7)
    assert chosen_settings("cifar2_resnet9", path) == Decayed()
    assert chosen_settings("shakespeare", tmp_path / "none.json") == Decayed()
    assert chosen_settings("mnist_mlp", path) == Decayed()
    assert "| 2 × 10 | falls to 0 | 1 | 3 |  | 0.400 | 0.100 |" in lds_settings_table(
        {"results": [{"set": "shakespeare", "size": size, "rows": [*rows, row(10, 2, 1.0, 0.1)]}]}
    )
    large = problem._replace(name="cifar2_resnet9", size=Size(48, 5, 4, 2))
    names = [method.name for method in methods(large, path)]
    assert names[0] == "early ensemble, decayed, power 0.7, Gram"
    # as many queries as it says, and the other route to the same scores for all of them
    asked = {method.name: method.queries for method in methods(large, path)}
    assert asked["early ensemble, decayed, power 0.7"] == 25
    assert asked[names[0]] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_lr"])  # the others take minutes each
def test_benchmark_runs(name, tmp_path):
    output = tmp_path / "lds.json"
    options = ["--output", output, "--figure", tmp_path / "lds.svg"]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.lds", "--quick", "--sets", name, "--left-out", "10"]
        + [str(option) for option in options],
        check=True,
        cwd=ROOT,
    )
    found = json.loads(output.read_text())["results"]["sets"][name]
    assert len(found["rows"]) >= 8
    assert all(-1 <= row["lds"]["estimate"] <= 1 for row in found["rows"])
