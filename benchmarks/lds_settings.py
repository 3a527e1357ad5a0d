"""Which epochs, damping and weights should an early ensemble have? On the development part alone.

    python -m benchmarks.lds_settings [--sets mnist_mlp,cifar2_resnet9,shakespeare] [--full]

Scores come from the Gram matrix of gradients (see `benchmarks.lds_gram`), one for each model
whatever the damping; every choice is held against models of halves of the development part, whose
examples, halves and models have nothing in common with those that `benchmarks.lds` reports on.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import RESULTS, cores, read_results, write_result
from benchmarks.lds_gram import gradient_products, influence_by_gram
from benchmarks.lds_run import Bank
from benchmarks.lds_sets import FULL, QUICK, REDUCED, Problem, loss_at, make_problem, truth
from jaxinf.evaluation import linear_datamodeling_score
from jaxinf.influence.measures import doubt

DAMPINGS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
POWERS = (0.0, 0.5, 0.7, 1.0)
# epochs of each model, and whether its learning rate falls to zero: together one full run at most,
# and no more models than these
MOST = {"mnist_lr": 10, "mnist_mlp": 10}
RUNS = ((4, True), (10, True), (20, True), (2, True), (4, False), (20, False))


def rows_of(
    problem: Problem,
    bank: Bank,
    epochs: int,
    decay: bool,
    of_truth: tuple[np.ndarray, np.ndarray],
    batch_size: int,
) -> list[dict[str, Any]]:
    """LDS for every damping and power, at growing numbers of models."""
    masks, outputs = of_truth
    count = max(1, min(MOST.get(problem.name, 5), problem.epochs // epochs))
    params, states = bank.models(epochs, count, decay)
    queries = jax.tree.map(jnp.asarray, problem.queries)
    weighted = problem.measure == "margin"
    totals: dict[float, Any] = dict.fromkeys(DAMPINGS, 0.0)
    doubts: Any = 0.0
    rows = []
    for number in range(count):
        began = time.perf_counter()
        one, state = jax.tree.map(lambda a, m=number: jnp.asarray(a[m]), (params, states))
        loss = loss_at(problem, state)
        products = gradient_products(
            loss, one, queries, problem.train, measure=problem.measure, batch_size=batch_size
        )
        for damping in DAMPINGS:
            totals[damping] = totals[damping] + influence_by_gram(products, damping)
        if weighted:
            doubts = doubts + np.asarray(doubt(jax.jit(loss)(one, problem.train)))
        for damping, total in totals.items():
            for power in POWERS if weighted else (0.0,):
                mean = total * (doubts / (number + 1)) ** power if power else total
                found = np.nanmean(linear_datamodeling_score(mean, masks, outputs))
                rows.append(
                    {
                        "epochs": epochs,
                        "decay": decay,
                        "models": number + 1,
                        "training": (number + 1) * epochs / problem.epochs,
                        "damping": damping,
                        "power": power,
                        "lds": float(found),
                    }
                )
        best = max(rows, key=lambda row: row["lds"])
        print(
            f"{problem.name}: {epochs} epochs{', decayed' * decay}, model {number + 1}: "
            f"{time.perf_counter() - began:.0f} s, best so far {best}",
            flush=True,
        )
    return rows


def main() -> None:
    """Command line; the JSON is written after every kind of run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="cifar2_resnet9,shakespeare")
    parser.add_argument("--subsets", type=int, default=24, help="models of the truth")
    parser.add_argument("--store", type=Path, default=None, help="folder: killed runs resume there")
    parser.add_argument("--full", action="store_true", help="the two larger sets at full size")
    parser.add_argument("--quick", action="store_true", help="digits, few examples and epochs")
    parser.add_argument("--at-once", type=int, default=None, help="models trained together")
    parser.add_argument("--batch-size", type=int, default=250, help="of the gradients' products")
    parser.add_argument("--output", type=Path, default=RESULTS / "lds_settings.json")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", cores())
    sizes = QUICK if arguments.quick else FULL if arguments.full else REDUCED
    settings = {
        "dampings": DAMPINGS,
        "powers": POWERS,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
    }
    for name in arguments.sets.split(","):
        size = sizes[name]._replace(subsets=min(arguments.subsets, sizes[name].subsets), seeds=1)
        problem = make_problem(name, size, "development", arguments.quick)
        problem = problem._replace(at_once=arguments.at_once)
        masks, outputs = truth(problem, "development", arguments.store)
        bank = Bank(problem, "development", arguments.store)
        document: dict[str, Any] = {"set": name, "size": size._asdict(), "rows": []}
        for epochs, decay in RUNS:
            if epochs > problem.epochs:
                continue
            document["rows"] += rows_of(
                problem, bank, epochs, decay, (masks, outputs[0]), arguments.batch_size
            )
            kept = {each["set"]: each for each in read_results(arguments.output)}
            write_result(arguments.output, settings, list((kept | {name: document}).values()))


if __name__ == "__main__":
    main()
