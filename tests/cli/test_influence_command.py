"""`jaxinf influence` on a Python contract: the same numbers as the library, and clear refusals."""

import runpy

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxinf import attribute
from jaxinf.influence import forward_inf_jvp, grad_cos, grad_dot, normalise_by_loss


@pytest.fixture
def run(call, contract, tmp_path):
    def run(*args: object):
        out = tmp_path / "out"
        result = call("influence", contract, "--out", out, "--no-progress", *args)
        assert result.exit_code == 0, result.output
        return out, result.stdout

    return run


def expected(contract, make):
    given = runpy.run_path(str(contract))["influence"]()
    method = make(given["loss_fn"])
    return attribute(method, given["params"], given["queries"], given["train"], progress=False)


def test_default_is_the_jvp_with_all_scores_and_a_report(run, contract):
    out, said = run()
    with np.load(out / "scores.npz") as saved:
        np.testing.assert_array_equal(saved["scores"], expected(contract, forward_inf_jvp).scores)
        assert saved["diagnostics/loss_before"].shape == (2,)
    assert "forward_inf_jvp" in said
    assert "2 queries × 24 examples" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Proponents" in page
    assert "query 1" in page


def test_options_reach_the_method(run, contract):
    out, _ = run("--method", "grad-dot", "--normalise", "loss", "--batch-size", 8, "--no-report")
    want = expected(contract, lambda loss: normalise_by_loss(grad_dot(loss), loss)).scores
    with np.load(out / "scores.npz") as saved:
        np.testing.assert_allclose(saved["scores"], want, rtol=1e-5)
    assert not (out / "report.html").exists()


def test_parquet_of_all_scores_has_a_column_per_query(run, contract):
    out, _ = run("--method", "grad-cos", "--format", "parquet", "--no-report")
    table = pq.read_table(out / "scores.parquet")
    want = expected(contract, grad_cos).scores
    assert table.column_names == ["train_index", "query_0", "query_1"]
    np.testing.assert_array_equal(table["train_index"], np.arange(24))
    np.testing.assert_allclose(table["query_1"], want[1], rtol=1e-6)


def test_parquet_of_the_top_is_long(run, contract):
    out, _ = run("--top-k", 3, "--format", "parquet", "--method", "grad-dot")
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    want = expected(contract, grad_dot).scores
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        order = np.argsort(want[row["query"]])
        ordered = order[::-1] if row["side"] == "top" else order
        assert row["train_index"] == ordered[row["rank"] - 1]
        assert row["score"] == want[row["query"], row["train_index"]]


def test_a_store_is_kept_and_another_run_is_refused(run, refused, contract, tmp_path):
    store = tmp_path / "store"
    run("--store", store, "--no-report")
    _, said = run("--store", store, "--no-report")
    assert "compiled in 0.0 s" in said  # nothing was left to do
    line = refused("influence", contract, "--store", store, "--learning-rate", 0.5)
    assert "belongs to another run" in line


def test_a_contract_may_bring_its_own_attributor_and_descriptions(
    call, contract, refused, tmp_path
):
    contract.write_text(
        contract.read_text().replace("    return {", "    return extra() | {") + "\ndef extra():\n"
        "    from jaxinf.influence import grad_cos\n"
        "    return {'attributor': grad_cos(loss_fn),\n"
        "            'describe': lambda example: ('<b>' + str(example['x'].shape), np.eye(5))}\n"
    )
    out = tmp_path / "out"
    result = call("influence", contract, "--out", out, "--no-progress")
    assert result.exit_code == 0, result.output
    assert "grad_cos" in result.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;(3,)" in page
    assert "<b>(3,)" not in page
    assert "data:image/png" in page
    assert "brings its own attributor" in refused("influence", contract, "--steps", 2)


def test_a_dotted_module_is_a_contract_too(call, contract, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some_package").mkdir()
    contract.rename(tmp_path / "some_package" / "given.py")
    result = call("influence", "some_package.given", "--no-report", "--no-progress")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "jaxinf-report" / "scores.npz").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", "has no function influence()"),
        ("import no_such_module_at_all", "cannot be imported: ModuleNotFoundError"),
        ("def influence(:", "cannot be imported: SyntaxError"),
        (
            "def influence():\n    return 1 / 0",
            "ZeroDivisionError: division by zero (contract.py, line 2)",
        ),
        ("def influence():\n    return 3", "returned a int"),
        ("def influence():\n    return {'params': 1, 'queries': 1, 'train': 1}", "no loss_fn"),
        (
            "def influence():\n    return dict(loss_fn=max, params=1, queries=1, train=1, los=1)",
            "returned los, which means nothing here",
        ),
        (
            "def influence():\n    return dict(loss_fn=2, params=1, queries=1, train=1)",
            "a loss_fn that is no function",
        ),
    ],
)
def test_a_contract_that_cannot_be_used_is_refused(refused, contract, text, reason):
    contract.write_text(text)
    assert reason in refused("influence", contract)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("--method", "grad-cos", "--learning-rate", "0.1"), "takes no step"),
        (("--method", "grad-dot", "--steps", "2"), "takes no number of steps"),
        (("--learning-rate", "0"), "must be positive"),
        (("--method", "released"), "needs a stateful_loss"),
        (("--top-k", "25"), "top_k is 25"),
        (("--batch-size", "0"), "batch_size must be at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(refused, contract, args, reason):
    assert reason in refused("influence", contract, "--no-progress", *args)


def test_a_missing_file_and_a_missing_module_are_refused(refused, tmp_path):
    assert "no such file" in refused("influence", tmp_path / "absent.py")
    assert "no module of that name" in refused("influence", "absent_package.module")


def test_released_runs_on_a_stateful_loss(call, contract, tmp_path):
    contract.write_text(
        contract.read_text() + "\nplain = influence\n"
        "def stateful(w, state, batch, *, train):\n"
        "    return loss_fn(w, batch), state\n"
        "def influence():\n"
        "    return plain() | {'stateful_loss': stateful, 'state': {}}\n"
    )
    result = call(
        "influence", contract, "--method", "released", "--out", tmp_path / "out", "--no-progress"
    )
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "out" / "scores.npz") as saved:
        assert (saved["scores"] >= 0).all()
        assert saved["scores"].any()
