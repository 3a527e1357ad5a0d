"""The sets of `benchmarks.lds`: data, model, training, and the truth by retraining on subsets.

Each set comes as two problems that share no example: `report`, which the published figures are
of, and `development`, on which everything is chosen that is chosen.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from benchmarks.lds_data import LENGTH, Examples, Part, Size, characters, images
from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.influence.ground_truth import draw_subsets, retrain_on_subsets, sgd_trainer
from jaxinf.models import (
    MLP,
    ResNet9,
    Transformer,
    cross_entropy,
    fit,
    margin,
    next_token_cross_entropy,
)


class Problem(NamedTuple):
    """One set, ready to train on and to attribute.

    Attributes:
        name: of the set.
        module: the network.
        loss: `(outputs, batch) -> float[B]`.
        output: `(outputs, batch) -> float[B]`, what is attributed, higher = better.
        measure: the same for the methods: `"margin"` or `"loss"`.
        train: N examples.
        queries: K examples.
        size: as asked for.
        epochs: of one full run, the unit of training compute.
        optimizer: of a learning rate or a schedule of it.
        rate: the learning rate that every model of the truth is trained with, throughout.
        batch_size: likewise.
        penalty: L2 penalty ½ λ ‖θ‖² in the objective.
        at_once: models that are trained together; None = as many as fit.
    """

    name: str
    module: nn.Module
    loss: Callable[..., jax.Array]
    output: Callable[..., jax.Array]
    measure: Literal["margin", "loss"]
    train: Examples
    queries: Examples
    size: Size
    epochs: int
    optimizer: Callable[[Any], optax.GradientTransformation]
    rate: float
    batch_size: int
    penalty: float = 0.0
    at_once: int | None = None


FULL = {
    "mnist_lr": Size(),
    "mnist_mlp": Size(),
    "cifar2_resnet9": Size(width=64),
    "shakespeare": Size(width=128),
}
REDUCED = FULL | {
    "cifar2_resnet9": Size(600, 100, 24, 2, width=8, reduced=True),
    "shakespeare": Size(800, 100, 30, 2, width=48, reduced=True),
}
QUICK = {name: Size(96, 8, 6, 2, width=4, reduced=True) for name in FULL} | {
    "shakespeare": Size(64, 8, 6, 2, width=8, reduced=True)
}


def make_problem(name: str, size: Size, part: Part = "report", quick: bool = False) -> Problem:
    """Build one of `FULL`'s sets; `quick` takes embedded digits, or fewer characters, and epochs.

    Raises:
        KeyError: for an unknown name.
    """
    epochs = 3 if quick else 20
    if name == "shakespeare":
        train, queries = characters(size, part)
        vocabulary = 65
        module: nn.Module = Transformer(
            vocab_size=vocabulary,
            num_layers=4 if size.width > 100 else 2,
            width=size.width,
            num_heads=4 if size.width > 100 else 2,
            max_length=LENGTH,
        )
        less_loss = lambda outputs, batch: -next_token_cross_entropy(outputs, batch)
        return Problem(
            name, module, next_token_cross_entropy, less_loss, "loss", train, queries, size,
            epochs, optax.adam, 1e-3, 32,
        )  # fmt: skip
    if name == "cifar2_resnet9":
        train, queries = images(size, part, quick, two_classes=True)
        module, rate, penalty = ResNet9(num_classes=2, width=size.width), 0.02, 0.0
    else:
        train, queries = images(size, part, quick)
        hidden, rate, penalty = {
            "mnist_lr": ((), 0.05, 1e-3),
            "mnist_mlp": ((128, 64), 0.05, 0.0),
        }[name]
        module = MLP(hidden)

    def optimizer(rate: Any) -> optax.GradientTransformation:
        momentum = optax.sgd(rate, momentum=0.9)
        if not penalty:
            return momentum
        return optax.chain(optax.add_decayed_weights(penalty), momentum)

    batch_size = 16 if quick else 50
    return Problem(
        name, module, cross_entropy, margin, "margin", train, queries, size, epochs, optimizer,
        rate, batch_size, penalty,
    )  # fmt: skip


def initialise(problem: Problem, key: jax.Array) -> tuple[Any, Any]:
    """Parameters and state of an untrained model."""
    variables = problem.module.init(key, problem.train["x"][:1])
    state = {name: part for name, part in variables.items() if name != "params"}
    return variables["params"], state


def loss_at(problem: Problem, state: Any) -> Any:
    """Per-example loss of the parameters, in evaluation mode, with the state as it is."""
    params, _ = initialise(problem, jax.random.key(0))
    loss_fn, _ = from_linen(problem.module, {"params": params, **state}, problem.loss)
    return loss_fn


def train_models(
    problem: Problem,
    masks: np.ndarray,
    key: jax.Array,
    epochs: int,
    *,
    decay: bool = False,
    outputs: Callable[[Any, Any], Any] | None = None,
    store: Path | None = None,
) -> Any:
    """Train one model on each mask's examples; `(params, state)` stacked, or what `outputs` says.

    Model s does not depend on how many others there are. With `decay`, the learning rate falls
    linearly to 0 within the run; otherwise fewer epochs are a checkpoint of the same run.
    """
    data, init = problem.train, functools.partial(initialise, problem)
    params, state = init(key)
    loss, _ = stateful_from_linen(problem.module, {"params": params, **state}, problem.loss)
    steps = epochs * (int(masks[0].sum()) // problem.batch_size)
    rate = optax.linear_schedule(problem.rate, 0.0, steps) if decay else problem.rate
    options: dict[str, Any] = {
        "optimizer": problem.optimizer(rate),
        "num_epochs": epochs,
        "batch_size": problem.batch_size,
    }
    keep = outputs or (lambda params, state: (params, state))
    # convolutions on a CPU are slow under vmap and inside compiled loops
    traced = problem.name != "cifar2_resnet9" or jax.default_backend() != "cpu"
    compiled = jax.jit(keep)

    def step_by_step(key: jax.Array, rows: Any) -> Any:
        part = {name: a[rows] for name, a in data.items()}
        fitted = fit(loss, *init(key), part, key=key, progress=False, **options)
        return compiled(fitted.params, fitted.state)

    train = sgd_trainer(loss, init, data, outputs=keep, **options) if traced else step_by_step
    return retrain_on_subsets(
        train, masks, key=key, traced=traced, models_at_once=problem.at_once, store=store,
        progress=store is not None,
    )  # fmt: skip


def truth(problem: Problem, part: Part, store: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Half-subsets bool[S, N], and the outputs float[seeds, S, K] of the models trained on them."""
    size = problem.size
    # the seeds of the two parts differ: neither examples nor masks nor models are shared
    first = {"report": 0, "development": 1000}[part]
    masks = draw_subsets(size.subsets, size.train, seed=first)
    queries = jax.tree.map(jnp.asarray, problem.queries)
    outputs = Partial(_output, problem.module, problem.output)
    found = []
    for seed in range(size.seeds):
        folder = None if store is None else store / f"{problem.name}_{part}_{seed}"
        of_model = lambda params, state: outputs(params, state, queries)
        key = jax.random.key(first + 1 + seed)
        found.append(
            train_models(problem, masks, key, problem.epochs, outputs=of_model, store=folder)
        )
    return masks, np.stack(found)


def _output(module: nn.Module, output: Any, params: Any, state: Any, queries: Any) -> jax.Array:
    return output(module.apply({"params": params, **state}, queries["x"]), queries)
