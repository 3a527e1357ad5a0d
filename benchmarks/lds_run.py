"""Train the models that methods look at, score, and keep both on disk; used by `benchmarks.lds`."""

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lds_data import Part
from benchmarks.lds_gram import gradient_products, influence_by_gram
from benchmarks.lds_methods import Method
from benchmarks.lds_sets import Problem, loss_at, train_models
from jaxinf import attribute
from jaxinf.engine.fingerprint import fingerprint
from jaxinf.influence import Attributor
from jaxinf.influence.measures import doubt


@dataclass
class Bank:
    """Trained models by number, epochs and schedule, trained when first asked for.

    Without decay, model m of fewer epochs is a checkpoint of the same run: keys and the order of
    the examples go by epoch.

    Attributes:
        problem: what they are trained on.
        part: report or development; the models differ.
        store: folder for what is trained, or None.
    """

    problem: Problem
    part: Part
    store: Path | None
    held: dict[tuple[int, int, bool], Any] = field(default_factory=dict)

    def models(self, epochs: int, count: int, decay: bool = False) -> Any:
        """`(params, state)` of models 0 to count − 1, stacked."""
        for held, models in self.held.items():
            if held[0] == epochs and held[1] >= count and held[2] == decay:
                return jax.tree.map(lambda a: a[:count], models)
        masks = np.ones((count, self.problem.size.train), bool)
        key = jax.random.key({"report": 100, "development": 200}[self.part])
        name = f"{self.problem.name}_{self.part}_{epochs}x{count}{'_decay' * decay}"
        models = train_models(
            self.problem,
            masks,
            key,
            epochs,
            decay=decay,
            store=self.store and self.store / name,
        )
        self.held[epochs, count, decay] = models
        return models


def scored(
    method: Method, bank: Bank, batch_size: int = 500
) -> Iterator[tuple[int, np.ndarray, dict[str, float]]]:
    """`(count, scores [K, N], cost)` at each of the method's counts, scores averaged over models.

    Cost is of all models so far: `seconds` (without training), and `flops` of the training side.
    """
    problem, largest = bank.problem, max(method.counts)
    banks = [bank.models(epochs, largest, method.decay) for epochs in method.epochs]
    train = problem.train
    queries = {name: jnp.asarray(a[: method.queries]) for name, a in problem.queries.items()}
    run = functools.partial(_attribute, bank.store, method.name, queries, train, batch_size)
    if method.gram is not None:
        run = functools.partial(_by_gram, bank, method, queries)
    if method.stacked:
        for count in method.counts:
            params, state = jax.tree.map(lambda a, c=count: jnp.asarray(a[:c]), banks[0])
            attributor = method.make(problem, jax.tree.map(lambda a: a[0], state))
            yield count, *run(attributor, params)
        return
    total, doubts, cost = 0.0, 0.0, {"seconds": 0.0, "flops": 0.0}
    for number in range(largest):
        for models in banks:
            params, state = jax.tree.map(lambda a, m=number: jnp.asarray(a[m]), models)
            attributor: Any = state if method.gram is not None else method.make(problem, state)
            scores, spent = run(attributor, (params, state) if method.with_state else params)
            total = total + scores.astype(np.float64)
            if method.weighted:
                doubts = doubts + np.asarray(doubt(jax.jit(loss_at(problem, state))(params, train)))
            cost = {name: cost[name] + spent[name] for name in cost}
        if number + 1 in method.counts:
            parts = (number + 1) * len(banks)
            mean = np.asarray(total) / parts
            yield (
                number + 1,
                mean * (doubts / parts) ** method.power if method.weighted else mean,
                dict(cost),
            )


def _by_gram(
    bank: Bank, method: Method, queries: Any, state: Any, params: Any
) -> tuple[np.ndarray, dict[str, float]]:
    problem, began = bank.problem, time.perf_counter()
    loss = loss_at(problem, state)
    assert method.gram is not None
    products = gradient_products(
        loss, params, queries, problem.train, measure=problem.measure,
        batch_size=min(method.gram_batch, problem.size.train),
    )  # fmt: skip
    scores = influence_by_gram(products, method.gram)
    if problem.measure == "margin" and not method.weighted:
        scores = scores * np.asarray(doubt(jax.jit(loss)(params, problem.train)))
    return scores, {"seconds": time.perf_counter() - began, "flops": np.nan}


def _attribute(
    store: Path | None,
    method: str,
    queries: Any,
    train: Any,
    batch_size: int,
    attributor: Attributor,
    params: Any,
) -> tuple[np.ndarray, dict[str, float]]:
    path = None
    if store is not None:
        # the model, the queries and the method with its settings tell one result from another; the
        # method's name here as well, for what it says of the scorer
        name = fingerprint((method, attributor.name, params, queries))
        path = store / "scores" / f"{name}.npz"
        if path.exists():
            with np.load(path) as saved:
                cost = {key: float(saved[key]) for key in ("seconds", "flops")}
                return saved["scores"], cost
    began = time.perf_counter()
    found = attribute(
        attributor, params, queries, train, batch_size=batch_size, progress=False,
        diagnostics=False,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    assert found.scores is not None
    per_example = found.plan.flops_per_example
    rows = len(jax.tree.leaves(train)[0])
    flops = np.nan if per_example is None else per_example * rows
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        np.savez(partial, scores=found.scores, seconds=seconds, flops=flops)
        partial.replace(path)
    return np.asarray(found.scores), {"seconds": seconds, "flops": flops}
