"""Data, model and training of `benchmarks.memorisation`."""

import functools
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from benchmarks.common import ROOT
from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.applications.memorisation import RetrainedOutputs, retrain_and_record
from jaxinf.datasets import load_digits, read_npz
from jaxinf.influence.ground_truth import retrain_on_subsets, sgd_trainer
from jaxinf.models import MLP, cross_entropy

DATA = ROOT.parent / "shared" / "data"
Part = Literal["report", "development"]
Examples = dict[str, np.ndarray]


class Size(NamedTuple):
    """How large the problem is.

    Attributes:
        train: N.
        test: M.
        models: S, subsets of the retrained estimate.
        seeds: runs of every cheap estimate.
        few: models of the same estimator on a small budget, the most that are tried.
        epochs: of one full run.
        batch: examples per step.
        rate: learning rate at the start; it falls linearly to 0 within every run.
        whole: models trained on all examples, per seed.
    """

    train: int = 5000
    test: int = 2000
    models: int = 1000
    seeds: int = 5
    few: int = 40
    epochs: int = 40
    batch: int = 100
    rate: float = 0.1
    whole: int = 8

    @property
    def is_quick(self) -> bool:
        """Whether it is only to be shown that everything runs: one setting of each kind."""
        return self.whole < 4


QUICK = Size(train=300, test=60, models=40, seeds=2, few=5, epochs=4, batch=20, whole=2)


class Problem(NamedTuple):
    """A set, its network, and how it is trained."""

    name: str
    part: Part
    size: Size
    train: Examples
    test: Examples
    module: MLP
    at_once: int | None

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Parameters of an untrained network, and no state."""
        return self.module.init(key, self.train["x"][:1])["params"], {}

    @property
    def loss(self) -> Any:
        """Training loss."""
        variables = {"params": jax.eval_shape(self.init, jax.random.key(0))[0]}
        return stateful_from_linen(self.module, variables, cross_entropy)[0]

    @property
    def loss_fn(self) -> Any:
        """Per-example loss of the parameters."""
        variables = {"params": self.init(jax.random.key(0))[0]}
        return from_linen(self.module, variables, cross_entropy)[0]

    def training(self, epochs: int, count: int) -> dict[str, Any]:
        """Optimiser and length of a run on `count` examples."""
        steps = epochs * (count // min(self.size.batch, count))
        schedule = optax.linear_schedule(self.size.rate, 0.0, steps)
        return {
            "optimizer": optax.sgd(schedule, momentum=0.9),
            "num_epochs": epochs,
            "batch_size": self.size.batch,
        }


def make_problem(
    name: str, part: Part, size: Size, at_once: int | None = None, quick: bool = False
) -> Problem:
    """Draw one part's examples; the two parts have none in common."""
    if quick:
        sides = load_digits()
    else:
        file = DATA / f"{name}.npz"
        sides = tuple(read_npz(file, f"x_{side}", f"y_{side}") for side in ("train", "test"))
    drawn = []
    for side, count in zip(sides, (size.train, size.test), strict=True):
        rows = np.random.default_rng(0).permutation(len(side["y"]))
        rows = rows[:count] if part == "report" else rows[count : 2 * count]
        x = side["x"][rows]
        x = np.asarray(x / 255 if x.dtype == np.uint8 else x, np.float32)
        drawn.append({"x": x, "y": side["y"][rows].astype(np.int32)})
    return Problem(name, part, size, drawn[0], drawn[1], MLP((128, 64)), at_once)


def logits(module: MLP, params: Any, state: Any, batch: Any) -> jax.Array:
    """Of a trained network."""
    return module.apply({"params": params}, batch["x"])


def train_on(
    problem: Problem,
    masks: np.ndarray,
    epochs: int,
    seed: int,
    *,
    with_test: bool = False,
    store: Path | None = None,
) -> RetrainedOutputs:
    """One model on each mask's examples; all masks must hold equally many."""
    return retrain_and_record(
        problem.loss,
        problem.init,
        functools.partial(logits, problem.module),
        problem.train,
        problem.test if with_test else None,
        subsets=masks,
        key=jax.random.key(seed),
        models_at_once=problem.at_once,
        # what is known by heart may be most of a class
        allow_missing_classes=True,
        store=store,
        progress=False,
        rows_at_once=problem.size.train,
        **problem.training(epochs, int(masks[0].sum())),
    )


def train_whole(problem: Problem, count: int, epochs: int, seed: int) -> Any:
    """Parameters of `count` models trained on all examples, stacked."""
    trainer = sgd_trainer(
        problem.loss, problem.init, problem.train, **problem.training(epochs, problem.size.train)
    )
    masks = np.ones((count, problem.size.train), bool)
    return retrain_on_subsets(
        trainer,
        masks,
        key=jax.random.key(seed),
        models_at_once=min(count, problem.at_once or count),
        progress=False,
    )[0]


def forward_flops(problem: Problem) -> float:
    """Of one example, by counting the products of the dense layers."""
    params = jax.eval_shape(problem.init, jax.random.key(0))[0]
    kernels = [leaf for leaf in jax.tree.leaves(params) if len(leaf.shape) == 2]
    return float(sum(2 * np.prod(kernel.shape) for kernel in kernels))
