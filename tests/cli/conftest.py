"""The command line as a user calls it, and a small contract to call it on."""

import inspect

import pytest
from typer.testing import CliRunner

from jaxinf.cli.app import app

CONTRACT = """
import numpy as np

def loss_fn(w, batch):
    return (batch["x"] @ w - batch["y"]) ** 2

def influence():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 3)).astype(np.float32)
    train = {"x": x, "y": (x @ np.ones(3)).astype(np.float32)}
    queries = {key: value[:2] + 1 for key, value in train.items()}
    return {"loss_fn": loss_fn, "params": np.zeros(3, np.float32),
            "queries": queries, "train": train}
"""


@pytest.fixture
def call(monkeypatch):
    """`call("command", ...)` runs it and returns the result: exit_code, stdout, stderr."""
    monkeypatch.delenv("JAXINF_TRACEBACK", raising=False)
    # click before 8.2 mixes stderr into stdout unless told
    old = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner = CliRunner(**({"mix_stderr": False} if old else {}))
    return lambda *args: runner.invoke(app, [str(arg) for arg in args])


@pytest.fixture
def contract(tmp_path):
    """A contract file: least squares on 24 rows, two queries."""
    file = tmp_path / "contract.py"
    file.write_text(CONTRACT)
    return file


@pytest.fixture
def refused(call):
    """Run a command that must fail with exit code 2 and one line; return the line."""

    def run(*args: object) -> str:
        result = call(*args)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith("jaxinf: ")
        assert result.stderr.count("\n") == 1
        return result.stderr.strip()

    return run
