"""Which training example was leaked into the test set? Hit rates of every method, over seeds.

    python -m benchmarks.leakage [--model cnn|mlp] [--seeds 5] [--quick]

100 training digits are copied, exactly, into the test set; each copy is a query, and its source
should rank first among all training examples. Exact copies are found by comparing pixels alone,
so the trivial baselines stand in the same table. The networks are trained as in the paper's
leakage experiment: SGD with momentum, no augmentation, no weight decay, until the data is fitted.
Each seed draws the copies, the initial weights and the order of training anew.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from benchmarks.common import RESULTS, cores, write_result
from jaxinf import attribute
from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.datasets import load_digits, plant_duplicates
from jaxinf.evaluation import hit_rate, mean_interval
from jaxinf.influence import (
    Attributor,
    forward_inf,
    forward_inf_jvp,
    grad_cos,
    grad_dot,
    normalise_by_gradient_norm,
    normalise_by_loss,
    released_forward_inf,
    representation_similarity,
)
from jaxinf.models import MLP, BatchNormCNN, cross_entropy, fit, predict

LEARNING_RATES = (0.01, 0.1, 1.0)
BASELINES = ("pixels, nearest neighbour", "features, nearest neighbour", "features, cosine")
RELEASED = "released recipe"


class Trained(NamedTuple):
    """A fitted network with what the methods need of it."""

    module: nn.Module
    params: Any
    state: Any
    loss_fn: Any
    stateful: Any


def build(model: str) -> nn.Module:
    """The network that `--model` names."""
    return MLP((128, 64)) if model == "mlp" else BatchNormCNN(widths=(16, 32, 32))


def train_network(model: str, train: Any, seed: int, epochs: int, progress: bool) -> Trained:
    """Fit the network to the data, as the paper's leakage experiment does."""
    module = build(model)
    init_key, fit_key = jax.random.split(jax.random.key(seed))
    variables = module.init(init_key, train["x"][:1])
    stateful, (params, state) = stateful_from_linen(module, variables, cross_entropy)
    batch_size = 64
    steps = epochs * (len(train["y"]) // batch_size)
    fitted = fit(
        stateful,
        params,
        state,
        train,
        optimizer=optax.sgd(optax.cosine_decay_schedule(0.1, steps), momentum=0.9),
        num_epochs=epochs,
        batch_size=batch_size,
        key=fit_key,
        progress=progress,
    )
    variables = {"params": fitted.params, **fitted.state}
    loss_fn, params = from_linen(module, variables, cross_entropy, train=False)
    return Trained(module, params, fitted.state, loss_fn, stateful)


def methods(network: Trained, seed: int) -> Iterator[tuple[str, Attributor, Any]]:
    """Name, attributor and the parameters that it takes."""
    loss, params = network.loss_fn, network.params
    stateful = params, network.state
    yield RELEASED, released_forward_inf(network.stateful, key=jax.random.key(seed)), stateful
    for lr in LEARNING_RATES:
        step = optax.sgd(lr)
        yield f"finite step, lr {lr:g}", forward_inf(loss, optimizer=step), params
        absolute = forward_inf(loss, optimizer=step, mode="ascent", difference="absolute")
        yield f"finite step, lr {lr:g}, ascent, absolute", absolute, params
    inner = {
        "finite step, lr 0.1": forward_inf(loss, optimizer=optax.sgd(0.1)),
        "JVP": forward_inf_jvp(loss),
        "grad_dot": grad_dot(loss, scorer="gradients"),
    }
    for name, attributor in inner.items():
        if "finite" not in name:
            yield name, attributor, params
        yield f"{name} / loss", normalise_by_loss(attributor, loss), params
        norms = normalise_by_gradient_norm(attributor, loss)
        yield f"{name} / gradient norm", norms, params
    yield "grad_cos", grad_cos(loss), params

    def features(params: Any, batch: Any) -> jax.Array:
        variables = {"params": params, **network.state}
        return network.module.apply(variables, batch["x"], method="features")

    pixels, nearest, cosine = BASELINES
    by_pixels = representation_similarity(lambda _, batch: batch["x"], metric="euclidean")
    yield pixels, by_pixels, params
    yield nearest, representation_similarity(features, metric="euclidean"), params
    yield cosine, representation_similarity(features), params


def run_seed(
    model: str, seed: int, copies: int, epochs: int, progress: bool
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Hit rates of every method under one seed, and how well the network fits."""
    train, test = load_digits(seed=0)
    planted = plant_duplicates(train, test, copies, seed)
    rows = np.flatnonzero(planted.source >= 0)
    queries = {key: a[rows] for key, a in planted.examples.items()}
    network = train_network(model, train, seed, epochs, progress)
    variables = {"params": network.params, **network.state}
    correct = {
        name: float(np.mean(predict(network.module, variables, part["x"]).argmax(1) == part["y"]))
        for name, part in {"train_accuracy": train, "test_accuracy": test}.items()
    }
    losses = np.asarray(jax.jit(network.loss_fn)(network.params, train))
    rates = {}
    for name, attributor, params in methods(network, seed):
        began = time.perf_counter()
        done = attribute(attributor, params, queries, train, diagnostics=False, progress=progress)
        assert done.scores is not None
        rates[name] = {
            f"top{k}": hit_rate(done.scores, planted.source[rows], k) for k in (1, 5)
        } | {"seconds": time.perf_counter() - began}
        if progress:
            line = f"seed {seed}, {name}: top-1 {rates[name]['top1']:.2f}"
            print(line, file=sys.stderr, flush=True)
    return rates, correct | {"train_loss": float(losses.mean())}


def summarise(runs: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """Means over seeds with 95 % intervals, and the paired difference from the pixel baseline."""
    found = []
    for name in runs[0]:
        entry: dict[str, Any] = {"method": name, "baseline": name in BASELINES}
        for k in ("top1", "top5"):
            values = [run[name][k] for run in runs]
            entry[k] = asdict(mean_interval(values)) | {"raw": values}
        differences = [run[name]["top1"] - run[BASELINES[0]]["top1"] for run in runs]
        entry["top1_minus_pixels"] = asdict(mean_interval(differences)) | {"raw": differences}
        entry["seconds"] = [run[name]["seconds"] for run in runs]
        found.append(entry)
    return found


def main() -> None:
    """Run what the command line asks for and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("cnn", "mlp"), default="cnn")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="2 seeds, 10 copies, 2 epochs")
    parser.add_argument("--no-progress", dest="progress", action="store_false")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.copies, arguments.epochs = 2, 10, 2
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2: an interval needs that many")
    jax.config.update("jax_num_cpu_devices", cores())
    # every seed runs the same programs on other numbers: they are compiled once
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    rates, fits = [], []
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        for seed in range(arguments.seeds):
            found = run_seed(
                arguments.model, seed, arguments.copies, arguments.epochs, arguments.progress
            )
            rates.append(found[0])
            fits.append(found[1])
    settings = {
        "model": arguments.model,
        "seeds": arguments.seeds,
        "epochs": arguments.epochs,
        "copies": arguments.copies,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
    }
    suffix = "" if arguments.model == "cnn" else f"_{arguments.model}"
    results = {"methods": summarise(rates), "fit": fits}
    write_result(arguments.output / f"leakage{suffix}.json", settings, results)


if __name__ == "__main__":
    main()
