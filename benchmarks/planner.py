"""What each scorer costs, what the planner predicts of it, and which it takes.

    python -m benchmarks.planner [--quick]

For an MLP, a CNN and a transformer and K = 1, 8 and 64 queries: `grad_dot` by each scorer and by
the planner's choice, in forward passes (operations as XLA counts them, over those of one forward
pass), seconds, scratch memory (as the compiler reserved it) and agreement with per-example
gradients. Loops count once in XLA's figures, so operations are taken from a program without
them; time and memory are of the program that the planner would run within its budget.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.common import RESULTS, write_result
from jaxinf.adapters import from_linen
from jaxinf.influence import grad_dot
from jaxinf.influence.cost_model import CostModel, measure_rates
from jaxinf.influence.loss import scoring_loss
from jaxinf.influence.planner import SCORERS, Planner
from jaxinf.models import MLP, BatchNormCNN, Transformer, cross_entropy, next_token_cross_entropy

BUDGET = 512 << 20
QUERIES = (1, 8, 64)
BATCH = {"mlp": 256, "cnn": 64, "transformer": 16}


def make(name: str, count: int, quick: bool) -> tuple[Any, Any, Any]:
    """Loss, parameters (random) and so many examples."""
    rng = np.random.default_rng(0)
    if name == "transformer":
        length, width, layers = (32, 32, 1) if quick else (128, 256, 2)
        module = Transformer(
            vocab_size=65, num_layers=layers, width=width, num_heads=4, max_length=length
        )
        data = {"x": rng.integers(0, 65, (count, length)).astype(np.int32)}
        variables = module.init(jax.random.key(0), data["x"][:1])
        return *from_linen(module, variables, next_token_cross_entropy), data
    size = 8 if quick else 28
    shape = (size, size, 1) if name == "mlp" else (size, size, 3)
    hidden, widths = ((64,), (8,)) if quick else ((1024, 1024), (32, 64))
    module = MLP(hidden, 10) if name == "mlp" else BatchNormCNN(widths=widths, num_classes=10)
    data = {
        "x": rng.normal(size=(count, *shape)).astype(np.float32),
        "y": rng.integers(0, 10, count).astype(np.int32),
    }
    variables = module.init(jax.random.key(0), data["x"][:1])
    return *from_linen(module, variables, cross_entropy, train=False), data


def measure(name: str, num_queries: int, rates: CostModel, quick: bool) -> list[dict[str, Any]]:
    """One row per scorer, the planner's choice marked."""
    rows = BATCH[name]
    loss_fn, params, data = make(name, rows + num_queries, quick)
    queries = jax.tree.map(lambda a: a[:num_queries], data)
    batch = jax.tree.map(lambda a: jax.numpy.asarray(a[num_queries:]), data)
    loss = jax.jit(scoring_loss(loss_fn))
    forward = loss.lower(params, batch).cost_analysis()["flops"] / rows
    pass_seconds = timed(loss, params, batch)[0] / rows
    planner = Planner(BUDGET, rates)
    choice = grad_dot(loss_fn, scorer=planner)
    began = time.perf_counter()
    plan = choice.plan(jax.eval_shape(choice.prepare, params, queries), batch)
    planning = time.perf_counter() - began
    print(f"{name}, K = {num_queries}\n{plan}", flush=True)
    found, truth = [], None
    for scorer in sorted(SCORERS, key=lambda scorer: scorer != "gradients"):
        row = one(loss_fn, params, queries, batch, replace(planner, candidates=(scorer,)))
        if row is None:
            continue
        scores = row.pop("scores")
        truth = scores if truth is None else truth
        error = np.linalg.norm(scores - truth) / np.linalg.norm(truth)
        found.append(
            {
                "model": name,
                "num_queries": num_queries,
                "scorer": scorer,
                "chosen": scorer == plan.chosen.scorer,
                "difference": float(error),
                "forward_passes": row.pop("flops") / forward,
                "forward_flops": forward,
                "forward_seconds": pass_seconds,
                "planning_seconds": planning,
            }
            | row
        )
        print({k: v for k, v in found[-1].items() if k != "raw_seconds"}, flush=True)
    return found


def one(loss_fn: Any, params: Any, queries: Any, batch: Any, planner: Planner) -> Any:
    """Figures of one scorer; None where it does not apply."""
    rows = jax.tree.leaves(batch)[0].shape[0]
    method = grad_dot(loss_fn, scorer=planner, query_chunk=None)
    try:
        state = method.prepare(params, queries)
    except ValueError:
        return None
    plan = method.plan(state, batch)
    whole = grad_dot(
        loss_fn,
        scorer=replace(planner, memory_budget=1e15),
        query_chunk=None,
        gradient_chunk=rows,
    )
    flops = jax.jit(whole.score).lower(state, batch).cost_analysis()["flops"] / rows
    run = jax.jit(method.score).lower(state, batch).compile()
    seconds, raw = timed(run, state, batch)
    return {
        "flops": flops,
        "seconds": seconds / rows,
        "raw_seconds": raw,
        "temp_bytes": run.memory_analysis().temp_size_in_bytes,
        "predicted_forward_passes": plan.chosen.forward_passes,
        "predicted_seconds": plan.chosen.seconds,
        "predicted_temp_bytes": plan.chosen.temp_bytes,
        "query_chunk": plan.chosen.query_chunk,
        "rows": plan.chosen.rows,
        "fits": plan.chosen.fits,
        "scores": np.asarray(run(state, batch), np.float64),
    }


def timed(fn: Any, *args: Any, repeats: int = 3) -> tuple[float, list[float]]:
    """Median seconds, and all of them."""
    jax.block_until_ready(fn(*args))
    raw = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(fn(*args))
        raw.append(time.perf_counter() - began)
    return statistics.median(raw), raw


def main() -> None:
    """Run what the command line asks for and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny models")
    parser.add_argument("--models", nargs="+", default=list(BATCH))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    rates = measure_rates(256 if arguments.quick else 2048)
    settings = {
        "memory_budget": BUDGET,
        "batch_size": BATCH,
        "product_rate": rates.product_rate,
        "element_rate": rates.element_rate,
        "device": jax.devices()[0].device_kind,
        "quick": arguments.quick,
    }
    results: list[dict[str, Any]] = []
    for name in arguments.models:
        for num_queries in QUERIES:
            results += measure(name, num_queries, rates, arguments.quick)
            write_result(arguments.output / "planner.json", settings, results)


if __name__ == "__main__":
    main()
