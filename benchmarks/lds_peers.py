"""dattri beside our methods: its published figures, and itself on the same models."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import Worker, cores
from benchmarks.dattri_contender import SEARCH
from benchmarks.lds_run import Bank
from benchmarks.lds_sets import Problem

# read off the charts of its paper to about 0.005: (method, models, training in full runs, LDS). Its
# TRAK looks at models of half the training set. Its truth is that of its own training recipes.
PUBLISHED: dict[str, tuple[tuple[str, int, float, float], ...]] = {
    "mnist_lr": (
        ("IF-CG", 1, 1, 0.80),
        ("IF-LiSSA", 1, 1, 0.79),
        ("TracIn", 10, 10, 0.33),
        ("Grad-Dot", 1, 1, 0.33),
        ("Grad-Cos", 1, 1, 0.19),
        ("TRAK", 1, 0.5, 0.41),
        ("TRAK", 10, 5, 0.64),
        ("TRAK", 50, 25, 0.68),
    ),
    "mnist_mlp": (
        ("IF-CG", 1, 1, 0.256),
        ("IF-LiSSA", 1, 1, 0.136),
        ("TracIn", 10, 10, 0.144),
        ("Grad-Dot", 1, 1, 0.100),
        ("Grad-Cos", 1, 1, 0.122),
        ("TRAK", 1, 0.5, 0.112),
        ("TRAK", 10, 5, 0.331),
        ("TRAK", 50, 25, 0.446),
    ),
    "cifar2_resnet9": (
        ("TracIn", 10, 10, 0.066),
        ("Grad-Dot", 1, 1, 0.065),
        ("Grad-Cos", 1, 1, 0.075),
        ("TRAK", 1, 0.5, 0.103),
        ("TRAK", 10, 5, 0.259),
        ("TRAK", 50, 25, 0.366),
    ),
    "shakespeare": (
        ("TracIn", 10, 10, 0.089),
        ("Grad-Dot", 1, 1, 0.035),
        ("Grad-Cos", 1, 1, 0.035),
        ("TRAK", 1, 0.5, 0.042),
        ("TRAK", 10, 5, 0.108),
        ("TRAK", 50, 25, 0.225),
    ),
}


def published(name: str) -> list[dict[str, Any]]:
    """Rows of the figures that dattri published for a set of this name."""
    return [
        {
            "method": method,
            "family": "dattri",
            "source": "dattri, published",
            "models": models,
            "training": training,
            "lds": {"estimate": figure},
        }
        for method, models, training, figure in PUBLISHED[name]
    ]


def run(python: str, bank: Bank, counts: dict[str, tuple[int, ...]]) -> Iterator[dict[str, Any]]:
    """Scores [K, N] of dattri's methods on the first fully trained models of the bank.

    Args:
        python: an interpreter that has dattri.
        bank: of any set; the networks have their twins in `benchmarks.torch_models`.
        counts: numbers of models, by method.
    """
    problem = bank.problem
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = (("", problem.train), ("q", problem.queries))
        arrays = {name + side: array for side, part in sides for name, array in part.items()}
        np.savez(folder / "problem.npz", **arrays)  # pyright: ignore[reportArgumentType]
        largest = max(max(each) for each in counts.values())
        models = weights(*bank.models(problem.epochs, largest))
        np.savez(folder / "models.npz", **models)  # pyright: ignore[reportArgumentType]
        config = {"folder": str(folder), "threads": cores()} | twin(problem)
        worker = stack.enter_context(Worker("benchmarks.dattri_contender", config, python=python))
        for method, each in counts.items():
            for number in each:
                for settings in SEARCH[method]:
                    reply = worker.ask(method=method, models=number, settings=settings)
                    yield {
                        "method": method,
                        "models": number,
                        "settings": settings,
                        "seconds": reply["seconds"],
                        "scores": np.load(folder / "scores.npy"),
                    }


def twin(problem: Problem) -> dict[str, Any]:
    """Class and arguments of the network's twin in `benchmarks.torch_models`."""
    module: Any = problem.module
    kind = type(module).__name__
    if kind == "MLP":
        inputs = int(np.prod(problem.train["x"].shape[1:]))
        return {"kind": kind, "sizes": {"inputs": inputs, "hidden": list(module.hidden)}}
    names = {
        "ResNet9": ("num_classes", "width"),
        "Transformer": ("vocab_size", "num_layers", "width", "num_heads", "max_length"),
    }[kind]
    return {"kind": kind, "sizes": {name: getattr(module, name) for name in names}}


def weights(params: Any, state: Any) -> dict[str, np.ndarray]:
    """Variables of M models [M, ...] by their paths, as `torch_models.load_flax` wants one's."""
    return {
        "/".join(key.key for key in path): np.asarray(array)
        for path, array in jax.tree.flatten_with_path({"params": params, **state})[0]
    }


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best of each method's settings by LDS on the figures themselves, as dattri publishes."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        key = row["method"], row["models"]
        if key not in best or row["lds"]["estimate"] > best[key]["lds"]["estimate"]:
            best[key] = row
    return list(best.values())
