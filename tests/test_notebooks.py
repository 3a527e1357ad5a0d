"""The notebooks run from top to bottom, and are what their paired text says."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    # a backend named for the whole run would keep the kernel from drawing into the notebook
    monkeypatch.delenv("MPLBACKEND", raising=False)
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_its_paired_text(path):
    import json

    cells = [
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["source"]
    ]
    text = path.with_suffix(".py").read_text()
    for cell in cells:
        line = max(cell.splitlines(), key=len)
        assert line in text or f"# {line}" in text, f"{path.name} has {line!r}; run jupytext --sync"
