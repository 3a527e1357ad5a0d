"""Which scores predict what retraining does? The linear datamodeling score of every method.

    python -m benchmarks.lds [--sets mnist_lr,mnist_mlp] [--store FOLDER] [--dattri PYTHON] [--full]

Truth: the outputs on the queries (margin of the right class, or minus the loss of a text) of models
trained on random halves of the training set, averaged over seeds. A method's score of a half is
the sum of its examples' scores; the LDS is the rank correlation of the two over the halves,
averaged over the queries, with a bootstrap interval over queries and halves.

Cost is split in two: training, in runs of the full length on the whole training set, and seconds
and floating-point operations of everything after it. `--part development` runs everything on
other examples, halves and models: settings are chosen there, never on the report.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import lds_peers
from benchmarks.common import RESULTS, ROOT, cores, write_result
from benchmarks.lds_contenders import SETTINGS, methods
from benchmarks.lds_loo import leave_one_out_truth
from benchmarks.lds_methods import Method
from benchmarks.lds_plot import plot
from benchmarks.lds_run import Bank, scored
from benchmarks.lds_sets import FULL, QUICK, REDUCED, Problem, make_problem, train_models, truth
from jaxinf.evaluation import lds, spearman
from jaxinf.evaluation.loo import loo_correlation

Truth = tuple[np.ndarray, np.ndarray]


def figures(scores: np.ndarray, masks: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
    """LDS of scores [K', N] of the first K' queries, against outputs [S, K]."""
    found = lds(scores, masks, outputs[:, : len(scores)], num_resamples=400).mean
    return {"estimate": found.estimate, "low": found.low, "high": found.high}


def agreement(outputs: np.ndarray) -> dict[str, float]:
    """What the noise of training leaves to be predicted, from outputs [seeds, S, K].

    `seeds` is the mean rank correlation over the subsets between models of two seeds; `ceiling`
    what a method that knew the expected output would reach against the mean of all seeds
    (Spearman and Brown's formula).
    """
    count = len(outputs)
    pairs = [(a, b) for b in range(count) for a in range(b)]
    each = [np.nanmean(spearman(outputs[a].T, outputs[b].T)) for a, b in pairs]
    mean = float(np.mean(each)) if each else float("nan")
    ceiling = np.sqrt(max(count * mean / (1 + (count - 1) * mean), 0.0))
    return {"seeds": mean, "ceiling": float(ceiling)}


def run_method(
    method: Method, bank: Bank, of_truth: Truth, loo: tuple[np.ndarray, np.ndarray] | None
) -> Iterator[dict[str, Any]]:
    """One row for each number of models, as they come."""
    problem = bank.problem
    for count, scores, cost in scored(method, bank):
        row: dict[str, Any] = {
            "method": method.name,
            "family": method.family,
            "source": "jaxinf",
            "forward_only": method.forward_only,
            "models": count,
            "epochs": list(method.epochs),
            # checkpoints of one run are paid for once
            "training": count * max(method.epochs) / problem.epochs,
            "queries": len(scores),
            **cost,
            "device": jax.devices()[0].device_kind,
            "lds": figures(scores, *of_truth),
        }
        if loo is not None:
            influences, left_out = loo
            found = loo_correlation(scores, influences[: len(scores)], rows=left_out)
            row["loo"] = {
                "pearson": float(np.nanmean(found.pearson)),
                "spearman": float(np.nanmean(found.spearman)),
            }
        print(describe(problem.name, row), flush=True)
        yield row


def describe(name: str, row: dict[str, Any]) -> str:
    """One line of progress."""
    found = row["lds"]
    text = (
        f"{name} | {row['method']} | {row['models']} models, {row['training']:g} runs of training, "
        f"{row['seconds']:.0f} s after it | LDS {found['estimate']:.3f} "
        f"({found['low']:.3f} to {found['high']:.3f})"
    )
    return text + (f" | LOO {row['loo']['pearson']:.3f}" if "loo" in row else "")


def run_dattri(
    python: str, bank: Bank, of_truth: Truth, quick: bool, save: Callable[[list[Any]], None]
) -> None:
    """Its methods on our models; of each method's settings the best one so far is saved."""
    one: tuple[int, ...] = (1,)
    many = (2,) if quick else (10,)
    counts = {
        "Grad-Dot": one,
        "Grad-Cos": one,
        "TracIn": many,
        "IF-LiSSA": one,
        "TRAK": one + many if quick else (1, 10, 50),
        "IF-CG": one,
    }
    if not bank.problem.name.startswith("mnist"):
        # as in its own benchmark: no influence functions of the two larger networks
        counts = {name: each for name, each in counts.items() if not name.startswith("IF-")}
    rows = []
    for found in lds_peers.run(python, bank, counts):
        # its CG divides 0 by 0 where a query's gradient has vanished: such queries are left out
        scores, finite = found["scores"], np.isfinite(found["scores"]).all(axis=1)
        if not finite.any():
            print(f"dattri {found['method']} {found['settings']}: nothing finite", flush=True)
            continue
        row = {
            "method": found["method"],
            "family": "dattri",
            "source": "dattri, run here",
            "models": found["models"],
            "training": float(found["models"]),
            "settings": found["settings"],
            "seconds": found["seconds"],
            "queries": int(finite.sum()),
            "device": "cpu",
            "lds": figures(np.where(finite[:, None], scores, 0), *of_truth),
        }
        rows.append(row)
        print(describe(bank.problem.name, row), flush=True)
        save(lds_peers.chosen(rows))


def run_set(
    problem: Problem, arguments: argparse.Namespace, save: Callable[[dict[str, Any]], None]
) -> None:
    """Truth, every method and dattri on one set; saved after each of them."""
    store = arguments.store
    began = time.perf_counter()
    masks, outputs = truth(problem, arguments.part, store)
    seconds = time.perf_counter() - began
    print(
        f"{problem.name}: {outputs.shape[0]} x {len(masks)} models in {seconds:.0f} s", flush=True
    )
    of_truth = masks, outputs.mean(axis=0)
    bank = Bank(problem, arguments.part, store)
    loo = None
    if problem.name == "mnist_lr":
        loo = leave_one_out_truth(problem, arguments.left_out, store, arguments.part)
    forward = forward_flops(problem)
    document: dict[str, Any] = {
        # its sets have the full size
        "published": [] if problem.size.reduced else lds_peers.published(problem.name),
        "size": problem.size._asdict(),
        "epochs": problem.epochs,
        "model": type(problem.module).__name__,
        "output": problem.measure,
        "agreement": agreement(outputs) if len(outputs) > 1 else None,
        "truth_seconds": seconds,
        "run_seconds": run_seconds(problem),
        "forward_flops": forward,
        "full_run_flops": 3 * forward * problem.epochs * problem.size.train,
        "rows": [],
    }
    wanted = arguments.methods.split(";") if arguments.methods else None
    for method in methods(problem, arguments.settings):
        if wanted is None or method.name in wanted:
            for row in run_method(method, bank, of_truth, loo):
                document["rows"].append(row)
                save(document)
    if arguments.dattri:
        ours = document["rows"]
        with_theirs = lambda rows: save(document | {"rows": ours + rows})
        run_dattri(arguments.dattri, bank, of_truth, arguments.quick, with_theirs)


def run_seconds(problem: Problem) -> float:
    """Of one full training run, alone, on what the methods are timed on; without compiling."""
    whole = np.ones((1, problem.size.train), bool)

    def spent(epochs: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(train_models(problem, whole, jax.random.key(0), epochs))
        return time.perf_counter() - began

    # both compile, and the longer one trains for so much longer
    few = max(1, problem.epochs // 10)
    return (spent(problem.epochs) - spent(few)) * problem.epochs / (problem.epochs - few)


def title(problem: Problem, quick: bool) -> str:
    """Under which its figures are kept: a set has its own at a reduced size."""
    return problem.name + "_reduced" * (problem.size.reduced and not quick)


def merged(path: Path, name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The sets of the file with this one: rows measured again replace what was there."""
    sets = json.loads(path.read_text())["results"]["sets"] if path.exists() else {}
    before = sets.get(name, {"rows": []})
    if before.get("size") != found["size"]:
        before = {"rows": []}
    key = lambda row: (row["source"], row["method"], row["models"])
    rows = {key(row): row for row in [*before["rows"], *found["rows"]]}
    # what the truth took, and where, stays as it was when that was trained
    kept = ("truth_seconds", "run_seconds", "settings")
    first = {key: before[key] for key in kept if key in before}
    return sets | {name: found | first | {"rows": list(rows.values())}}


def all_sets(output: Path) -> dict[str, Any]:
    """The sets of all result files beside `output`: the large ones come from other machines."""
    found: dict[str, Any] = {}
    for path in sorted(output.parent.glob("lds*.json")):
        results = json.loads(path.read_text())["results"]
        found |= results["sets"] if isinstance(results, dict) else {}
    return found


def forward_flops(problem: Problem) -> float:
    """Of one training example, by the compiler's count over a batch."""
    batch = {name: jnp.asarray(a[: problem.batch_size]) for name, a in problem.train.items()}
    variables = problem.module.init(jax.random.key(0), batch["x"][:1])
    compiled = jax.jit(problem.module.apply).lower(variables, batch["x"]).compile()
    cost: Any = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return float(cost["flops"]) / problem.batch_size


def main() -> None:
    """Run what the command line asks for; write the JSON after every set, then the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="mnist_lr,mnist_mlp", help=f"of {', '.join(FULL)}")
    parser.add_argument("--part", choices=("report", "development"), default="report")
    parser.add_argument("--methods", default=None, help="by name, separated by ';'; default all")
    parser.add_argument("--store", type=Path, default=None, help="folder: killed runs resume there")
    parser.add_argument("--dattri", default=None, help="interpreter that has dattri")
    parser.add_argument("--left-out", type=int, default=200, help="examples, for the LOO truth")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="of `lds_settings`")
    parser.add_argument("--full", action="store_true", help="the two larger sets at full size")
    parser.add_argument(
        "--seeds", type=int, default=None, help="of the truth, in place of the usual"
    )
    parser.add_argument("--at-once", type=int, default=None, help="models trained together")
    parser.add_argument("--quick", action="store_true", help="digits, few examples and epochs")
    parser.add_argument("--output", type=Path, default=RESULTS / "lds.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "lds.svg")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL if arguments.full else REDUCED
    names = arguments.sets.split(",")
    if unknown := set(names) - set(sizes):
        parser.error(f"unknown set {sorted(unknown)[0]}: of {', '.join(sizes)}")
    jax.config.update("jax_num_cpu_devices", cores())
    settings = {
        "part": arguments.part,
        "quick": arguments.quick,
        "full": arguments.full,
        "cores": cores(),
        "device": jax.devices()[0].device_kind,
    }
    for name in names:
        size = sizes[name]._replace(seeds=arguments.seeds or sizes[name].seeds)
        problem = make_problem(name, size, arguments.part, arguments.quick)
        problem = problem._replace(at_once=arguments.at_once)

        key = title(problem, arguments.quick)

        def save(found: dict[str, Any], name: str = key) -> None:
            sets = merged(arguments.output, name, found | {"settings": settings})
            write_result(arguments.output, settings, {"sets": sets})

        run_set(problem, arguments, save)
        if arguments.part == "report" and not arguments.quick:
            sets = all_sets(arguments.output)
            plot(arguments.figure, sets)
            plot(arguments.figure.with_stem(arguments.figure.stem + "_seconds"), sets, "seconds")


if __name__ == "__main__":
    main()
