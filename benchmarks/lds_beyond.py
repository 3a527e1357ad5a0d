"""Beyond the early ensemble on MNIST + MLP: what else was tried within one full run of training.

    python -m benchmarks.lds_beyond [--store FOLDER] [--quick]

Four ideas, each chosen on the development part and then looked at once on the report part, whose
examples, halves and models are others: damping of its own for each layer; checkpoints along the
same runs, averaged or with weights that were fitted to the development part's retraining; epochs
chosen by the held-out loss of the ensemble, with no retraining at all; and unrolling from briefly
trained models (a row of `benchmarks.lds`). Scores come from dot products of gradients
(`benchmarks.lds_gram`), layer by layer.
"""

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import nnls

from benchmarks.common import RESULTS, cores, write_result
from benchmarks.lds_data import Part
from benchmarks.lds_gram import Products, gradient_products
from benchmarks.lds_run import Bank
from benchmarks.lds_sets import FULL, QUICK, Problem, loss_at, make_problem, truth
from jaxinf.evaluation import linear_datamodeling_score
from jaxinf.influence.measures import doubt

SET, EPOCHS, POWER = "mnist_mlp", 4, 0.7
MULTIPLES = (0.1, 0.3, 1.0, 3.0, 10.0)
STAGES = (1, 2, 4)
RUNS = (2, 4, 10, 20)
Layers = dict[str, Products]


def layer_products(problem: Problem, params: Any, state: Any) -> Layers:
    """Dot products of gradients by layer: their sum is that of whole gradients."""
    loss = loss_at(problem, state)
    queries = jax.tree.map(jnp.asarray, problem.queries)

    def of_layer(name: str) -> Products:
        only = lambda layer, batch: loss({**params, name: layer}, batch)
        return gradient_products(
            only, params[name], queries, problem.train, measure=problem.measure
        )

    return {name: of_layer(name) for name in params}


def scores_of(layers: Layers, multiples: Mapping[str, float]) -> np.ndarray:
    """Influence float[K, N] at a damping of one mean eigenvalue times each layer's multiple."""
    count = len(next(iter(layers.values())).inside)
    trace = sum(jnp.trace(each.inside) for each in layers.values())
    unit = trace / (min(count, sum(each.parameters for each in layers.values())) * count)
    scale = {name: 1 / (unit * multiples[name]) for name in layers}
    inside = sum(scale[name] * each.inside for name, each in layers.items())
    asked = sum(scale[name] * each.asked for name, each in layers.items())
    factor = jax.scipy.linalg.cho_factor(inside + count * jnp.eye(count), lower=True)
    return np.asarray(jax.scipy.linalg.cho_solve(factor, asked.T).T, np.float64)


class Side:
    """One part: its problem, its truth, and its models with what was made of them."""

    def __init__(self, part: Part, store: Path | None, quick: bool):
        """Train, or read from the store, the truth and the models."""
        size = (QUICK if quick else FULL)[SET]
        size = size if part == "report" else size._replace(seeds=1)
        self.problem = make_problem(SET, size, part, quick)
        self.masks, outputs = truth(self.problem, part, store)
        self.outputs = outputs.mean(axis=0)
        self.bank = Bank(self.problem, part, store)
        self.count = max(1, self.problem.epochs // min(EPOCHS, self.problem.epochs))
        self._held: list[tuple[Layers, np.ndarray]] = []

    def models(self, epochs: int, decay: bool) -> list[tuple[Any, Any]]:
        """`(params, state)` of each model that one full run pays for."""
        epochs = min(epochs, self.problem.epochs)
        count = self.problem.epochs // epochs if decay else self.count
        both = self.bank.models(epochs, count, decay)
        return [jax.tree.map(lambda a, m=m: jnp.asarray(a[m]), both) for m in range(count)]

    def plain(self, epochs: int, decay: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean influence without weights, at one damping, and mean 1 − p."""
        found = []
        for params, state in self.models(epochs, decay):
            loss = loss_at(self.problem, state)
            queries = jax.tree.map(jnp.asarray, self.problem.queries)
            products = gradient_products(
                loss, params, queries, self.problem.train, measure=self.problem.measure
            )
            found.append((scores_of({"all": products}, {"all": 1.0}), self._doubt(params, state)))
        return np.mean([s for s, _ in found], axis=0), np.mean([d for _, d in found], axis=0)

    def by_layer(self, multiples: Mapping[str, float] | None) -> tuple[np.ndarray, np.ndarray]:
        """The same of the decayed models with a damping for each layer; None: one for all."""
        if not self._held:
            self._held = [
                (layer_products(self.problem, params, state), self._doubt(params, state))
                for params, state in self.models(EPOCHS, True)
            ]
        each = multiples or dict.fromkeys(self._held[0][0], 1.0)
        mean = np.mean([scores_of(layers, each) for layers, _ in self._held], axis=0)
        return mean, np.mean([doubts for _, doubts in self._held], axis=0)

    def _doubt(self, params: Any, state: Any) -> np.ndarray:
        loss = jax.jit(loss_at(self.problem, state))
        return np.asarray(doubt(loss(params, self.problem.train)))

    def lds(self, scores: np.ndarray) -> float:
        """Mean over queries."""
        return float(np.nanmean(linear_datamodeling_score(scores, self.masks, self.outputs)))


def weighted(found: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Influence times (1 − p) to the power."""
    return found[0] * found[1] ** POWER


def layer_rows(sides: dict[str, Side]) -> list[dict[str, Any]]:
    """One layer's damping changed at a time, then the best of each together."""
    side = sides["development"]
    names = list(side.models(EPOCHS, True)[0][0])
    common = dict.fromkeys(names, 1.0)
    rows, best = [], dict(common)

    def add(what: str, multiples: Mapping[str, float], parts: tuple[str, ...]) -> float:
        row: dict[str, Any] = {"idea": "damping by layer", "what": what}
        for part in parts:
            row[part] = sides[part].lds(weighted(sides[part].by_layer(multiples)))
        rows.append(row)
        print(row, flush=True)
        return row["development"]

    both = ("development", "report")
    usual = add("one damping", common, both)
    found = {name: {1.0: usual} for name in names}
    for name, multiple in itertools.product(names, (m for m in MULTIPLES if m != 1.0)):
        changed = common | {name: multiple}
        found[name][multiple] = add(f"{name} times {multiple:g}", changed, ("development",))
    for name in names:
        best[name] = max(found[name], key=lambda m, name=name: found[name][m])
    said = ", ".join(f"{name} times {multiple:g}" for name, multiple in best.items())
    add(f"the best of each: {said}", best, both)
    return rows


def stage_rows(sides: dict[str, Side]) -> list[dict[str, Any]]:
    """Checkpoints of the same runs together, with equal and with fitted weights."""
    stages = {
        part: {
            epochs: side.plain(epochs, False)
            for epochs in sorted({min(e, side.problem.epochs) for e in STAGES})
        }
        for part, side in sides.items()
    }
    rows = []
    for number in range(1, len(STAGES) + 1):
        for chosen in itertools.combinations(stages["report"], number):
            row: dict[str, Any] = {"idea": "checkpoints of the same runs"}
            row["what"] = "after " + ", ".join(map(str, chosen)) + " epochs"
            for part, side in sides.items():
                pair = [stages[part][epochs] for epochs in chosen]
                mean = tuple(np.mean([one[i] for one in pair], axis=0) for i in (0, 1))
                row[part] = side.lds(weighted((mean[0], mean[1])))
            rows.append(row)
            print(row, flush=True)
    fitted = fit_weights(
        sides["development"], [weighted(s) for s in stages["development"].values()]
    )
    shares = ", ".join(f"{w:.2f}" for w in fitted)
    row = {"idea": "checkpoints of the same runs", "what": f"fitted weights {shares}"}
    for part, side in sides.items():
        each = [weighted(one) / weighted(one).std() for one in stages[part].values()]
        row[part] = side.lds(sum(w * one for w, one in zip(fitted, each, strict=True)))
    print(row, flush=True)
    return [*rows, row]


def fit_weights(side: Side, scores: list[np.ndarray]) -> np.ndarray:
    """Non-negative weights of several scores that predict the outputs of retrained models best."""
    standard = lambda a: (a - a.mean(axis=0)) / np.maximum(a.std(axis=0), 1e-12)
    predicted = [standard(side.masks @ (one / one.std()).T).ravel() for one in scores]
    found, _ = nnls(np.stack(predicted, axis=1), standard(side.outputs).ravel())
    return found / max(found.sum(), 1e-12)


def epoch_rows(sides: dict[str, Side]) -> list[dict[str, Any]]:
    """What held-out queries say of the ensemble that one full run pays for, beside its LDS."""
    rows = []
    for epochs in dict.fromkeys(min(e, sides["report"].problem.epochs) for e in RUNS):
        row: dict[str, Any] = {"idea": "epochs", "what": f"{epochs} epochs each, decayed"}
        for part, side in sides.items():
            queries = jax.tree.map(jnp.asarray, side.problem.queries)
            chances = [
                np.exp(-np.asarray(loss_at(side.problem, state)(params, queries)))
                for params, state in side.models(epochs, True)
            ]
            row[f"{part}_held_out_loss"] = float(-np.log(np.mean(chances, axis=0)).mean())
            row[part] = side.lds(weighted(side.plain(epochs, True)))
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Run everything; the JSON is written after each idea."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, default=None, help="folder: killed runs resume there")
    parser.add_argument("--quick", action="store_true", help="digits, few examples and epochs")
    parser.add_argument("--output", type=Path, default=RESULTS / "lds_beyond.json")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", cores())
    parts: tuple[Part, ...] = ("development", "report")
    sides: dict[str, Side] = {part: Side(part, arguments.store, arguments.quick) for part in parts}
    settings = {
        "set": SET,
        "epochs": EPOCHS,
        "power": POWER,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
    }
    rows: list[dict[str, Any]] = []
    for idea in (stage_rows, epoch_rows, layer_rows):
        rows += idea(sides)
        write_result(arguments.output, settings, rows)


if __name__ == "__main__":
    main()
