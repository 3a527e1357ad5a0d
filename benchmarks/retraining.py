"""Models per second when a network is trained again on many subsets, by vmap and one by one.

    python -m benchmarks.retraining [--quick]

Every contender trains the same models: half-subsets of a training set, SGD with momentum.

    loop      a Python loop over `jaxinf.models.fit`: one compiled step per mini-batch
    compiled  a Python loop over whole trainings, each one compiled scan
    vmap      `retrain_on_subsets`, so many models at once, over all cores

Each contender is a process of its own; repetitions alternate, and the median is taken.

And the price of leave-one-out against its mirror, on the convex problem of
`benchmarks.mirrored_hypothesis`: a sample of examples is left out, and the time for all follows.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, ROOT, Worker, cores, serve, spread, write_result

DATA = ROOT.parent / "shared" / "data"
# layers, training examples, mini-batch; epochs are few, since time is proportional to them
PROBLEMS: dict[str, dict[str, Any]] = {
    "digits, 64-32-10": {"set": "digits", "widths": [32], "train": 1000, "batch": 20},
    "digits, 64-128-64-10": {"set": "digits", "widths": [128, 64], "train": 1000, "batch": 20},
    "MNIST, 784-32-10": {"set": "mnist", "widths": [32], "train": 5000, "batch": 50},
    "MNIST, 784-128-64-10": {"set": "mnist", "widths": [128, 64], "train": 5000, "batch": 50},
}
EPOCHS = 4
# models that are timed per repetition
COUNTS = {"loop": 8, "compiled": 16}
AT_ONCE = (1, 4, 16, 64)


def prepare(problem: dict[str, Any], contender: str) -> Callable[[int], float]:
    """Import, load and compile; `count -> seconds` for the training of so many models."""
    import jax

    jax.config.update("jax_num_cpu_devices", cores() if contender == "vmap" else 1)
    import numpy as np
    import optax

    from jaxinf.adapters import stateful_from_linen
    from jaxinf.datasets import load_digits
    from jaxinf.datasets.npz import read_npz
    from jaxinf.engine import data_mesh
    from jaxinf.influence.ground_truth import draw_subsets, retrain_on_subsets, sgd_trainer
    from jaxinf.models import MLP, cross_entropy, fit

    size = problem["train"]
    if problem["set"] == "digits":
        whole = load_digits()[0]
    else:
        read = read_npz(DATA / "mnist.npz", "x_train", "y_train")
        whole = {"x": (read["x"][:size] / 255).astype(np.float32), "y": read["y"][:size]}
    data = {"x": whole["x"][:size].reshape(size, -1), "y": whole["y"][:size]}
    module = MLP(tuple(problem["widths"]))
    init = lambda key: (module.init(key, data["x"][:1])["params"], {})
    loss, _ = stateful_from_linen(module, {"params": init(jax.random.key(0))[0]}, cross_entropy)
    options: dict[str, Any] = {
        "optimizer": optax.sgd(0.05, momentum=0.9),
        "num_epochs": EPOCHS,
        "batch_size": problem["batch"],
    }
    trainer = sgd_trainer(loss, init, data, outputs=lambda params, _: params, **options)
    alone, first = jax.jit(trainer), jax.jit(init)
    key = jax.random.key(1)

    def run(count: int) -> float:
        masks = draw_subsets(count, size, seed=0)
        began = time.perf_counter()
        if contender == "vmap":
            retrain_on_subsets(
                trainer, masks, key=key, mesh=data_mesh(), models_at_once=problem["at_once"]
            )
            return time.perf_counter() - began
        for number, mask in enumerate(masks):
            rows, own = np.flatnonzero(mask), jax.random.fold_in(key, number)
            if contender == "compiled":
                jax.block_until_ready(alone(own, rows))
            else:
                part = {name: a[rows] for name, a in data.items()}
                fit(loss, *first(own), part, key=own, progress=False, **options)
        return time.perf_counter() - began

    return run


def worker(config: dict[str, Any]) -> None:
    """Compile on the first request, and time every request."""
    run = prepare(config["problem"], config["contender"])
    count = config["count"]
    run(count)
    serve(lambda: {"rate": count / run(count)})


def measure(problem: dict[str, Any], repeats: int, at_once: tuple[int, ...]) -> dict[str, Any]:
    """Models per second of every contender on one problem."""
    configs = [{"contender": name, "count": count} for name, count in COUNTS.items()]
    configs += [
        {"contender": "vmap", "count": max(2 * number * cores(), 8), "at_once": number}
        for number in at_once
    ]
    workers = [
        Worker("benchmarks.retraining", config | {"problem": problem | config})
        for config in configs
    ]
    rates: list[list[float]] = [[] for _ in configs]
    try:
        # none is timed while another one compiles
        for each in workers:
            each.ask()
        for _ in range(repeats):
            for own, each in zip(rates, workers, strict=True):
                own.append(each.ask()["rate"])
    finally:
        for each in workers:
            each.__exit__()
    found = [config | spread(own) for config, own in zip(configs, rates, strict=True)]
    loop, compiled = (found[i]["median"] for i in range(2))
    best = max(row["median"] for row in found[2:])
    return {
        "contenders": found,
        "vmap_per_loop": best / loop,
        "vmap_per_compiled": best / compiled,
    }


def mirror_cost(name: str, size: int, rows: int) -> dict[str, Any]:
    """Seconds for all training examples and ten queries, by retraining and by its mirror."""
    from benchmarks.mirrored_hypothesis import convex, float64

    with float64():
        figures, _ = convex(name, size, rows, 0.01)
    seconds = figures["seconds"]
    return {
        "set": name,
        "train": figures["train"],
        "left_out": figures["left_out"],
        "queries": figures["retrainings_for_all"]["mirror"],
        "mirror_seconds": seconds["mirror_all"],
        "leave_one_out_seconds": seconds["leave_one_out_all_extrapolated"],
        "ratio": seconds["ratio_for_all"],
    }


def main() -> None:
    """Run what the command line asks for and write the JSON."""
    if sys.argv[1:2] == ["--worker"]:
        worker(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the smallest network, once")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    problems, at_once = dict(PROBLEMS), AT_ONCE
    if arguments.quick:
        problems, at_once, arguments.repeats = dict([next(iter(PROBLEMS.items()))]), (4,), 1
    # in this process, once no worker is alive
    import jax

    jax.config.update("jax_num_cpu_devices", cores())
    mirror = mirror_cost("digits", 300, 40) if arguments.quick else mirror_cost("mnist", 4900, 400)
    print(f"mirrored leave-one-out: {mirror['ratio']:.0f} times cheaper", flush=True)
    results = []
    for name, problem in problems.items():
        results.append({"problem": name, "epochs": EPOCHS, **problem})
        results[-1] |= measure(problem, arguments.repeats, at_once)
        print(f"{name}: vmap {results[-1]['vmap_per_loop']:.1f} times the loop", flush=True)
        settings = {"repeats": arguments.repeats, "quick": arguments.quick, "mirror": mirror}
        write_result(arguments.output / "retraining.json", settings, results)


if __name__ == "__main__":
    main()
