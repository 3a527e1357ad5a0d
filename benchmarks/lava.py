"""Class-wise transport side by side: jaxinf, ott, geomloss, POT, and the released LAVA recipe.

    pip install geomloss==0.2.6 POT torch
    python -m benchmarks.lava [--sizes 1000,2000,5000,10000] [--contenders a,b] [--quick]

Solvers: the same features, label costs and ε, the same marginal error; from features to
potentials. Pipelines: from features to values, label distances included. One process per
contender, repetitions alternate; the first call of each (compilation, caches) is listed apart.
What is measured again replaces what the file has of it, so sizes may be run one at a time.
"""

import argparse
import itertools
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import (
    RESULTS,
    Worker,
    cores,
    read_results,
    read_settings,
    spread,
    write_result,
)
from benchmarks.lava_contenders import make_inputs

SOLVERS = ("jaxinf", "jaxinf_one_device", "ott", "geomloss", "pot_log", "pot_kernel")
PIPELINES = ("jaxinf_lava", "jaxinf_lava_reference", "released_lava")
ALL = SOLVERS + PIPELINES
# these take a number of steps instead of an error to reach
COUNTED = ("geomloss", "pot_log", "pot_kernel")
WIDTH, CLASSES, THRESHOLD = 512, 10, 1e-3
# minutes per solve beyond
LARGEST = {"pot_log": 2000}
# nothing is compiled, and a call takes minutes beyond this size: the first one is the measurement
ONCE, ONCE_BEYOND = (*COUNTED, "released_lava"), 5000
OPTIONS = {"jaxinf_lava_reference": {"solver": "reference", "label_cost": "reference"}}


def measure(
    size: int, repeats: int, steps: dict[str, int], contenders: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Time contenders on one size; `steps` is what each needed before, and is brought up."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        make_inputs(Path(folder), size, WIDTH, CLASSES)
        config = {"folder": folder, "cores": cores(), "threshold": THRESHOLD}
        workers, firsts = {}, {}
        for name in contenders:
            if size > LARGEST.get(name, size):
                continue
            own = config | {"contender": name, "options": OPTIONS.get(name, {})}
            worker = Worker("benchmarks.lava_contenders", own)
            stack.enter_context(worker)
            workers[name] = worker
            firsts[name] = _first_call(name, worker, steps)
            print(f"n={size} {name}: first call {firsts[name]['seconds'][0]:.2f} s", flush=True)
        replies: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
        for _, name in itertools.product(range(repeats), workers):
            if size > ONCE_BEYOND and name in ONCE:
                replies[name] = [firsts[name]]
                continue
            reply = workers[name].ask(steps=steps.get(name, 0), check=False)
            replies[name].append(reply)
            print(f"n={size} {name}: {reply['seconds'][0]:.3f} s", flush=True)
    rows = []
    for name, answers in replies.items():
        seconds = spread(answer["seconds"][0] for answer in answers)
        rows.append(
            {
                "size": size,
                "contender": name,
                "kind": "solver" if name in SOLVERS else "pipeline",
                "seconds": seconds,
                "first_call_extra_s": max(0.0, firsts[name]["seconds"][0] - seconds["median"]),
                "marginal_error": firsts[name].get("marginal_error"),
                "steps": steps[name] if name in COUNTED else None,
                "peak_bytes": answers[-1]["peak_bytes"],
                "cores": cores(),
            }
        )
    return rows


def _first_call(name: str, worker: Worker, steps: dict[str, int]) -> dict[str, Any]:
    """Compile; where steps are counted, find the least number that serves, to a tenth."""
    if name in PIPELINES:
        return worker.ask(steps=0, check=False)
    if name not in COUNTED:
        return worker.ask(steps=0, check=True)
    replies: dict[int, dict[str, Any]] = {}

    def serves(count: int) -> bool:
        replies[count] = worker.ask(steps=count, check=True)
        return replies[count]["marginal_error"] <= THRESHOLD

    # what the size before needed may be more than this one does, or less
    too_few, enough = 0, steps.get(name, 10)
    while not serves(enough):
        too_few, enough = enough, 2 * enough
        if enough > 5000:
            raise RuntimeError(f"{name} does not reach a marginal error of {THRESHOLD}")
    # to a tenth: less than what their timings vary by
    while enough - too_few > max(5, enough // 10):
        middle = (too_few + enough) // 2
        if serves(middle):
            enough = middle
        else:
            too_few = middle
    steps[name] = enough
    return replies[enough]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,2000,5000,10000")
    parser.add_argument("--contenders", default=None, help=f"of {', '.join(ALL)}; default all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small size, one repetition")
    parser.add_argument("--output", type=Path, default=RESULTS / "lava.json")
    arguments = parser.parse_args()
    sizes = [200] if arguments.quick else [int(s) for s in arguments.sizes.split(",")]
    repeats = 1 if arguments.quick else arguments.repeats
    contenders = tuple(arguments.contenders.split(",")) if arguments.contenders else ALL
    before = read_settings(arguments.output)
    settings = {
        "width": WIDTH,
        "classes": CLASSES,
        "threshold": THRESHOLD,
        "epsilon": "0.05 of the mean cost",
        "repeats": repeats,
        # rows that had other cores say so themselves
        "cores": before.get("cores", cores()),
    }
    for size in sorted(sizes):
        kept = {(row["size"], row["contender"]): row for row in read_results(arguments.output)}
        # what a smaller size took is where the search for this one begins
        steps = {row["contender"]: row["steps"] for row in _by_size(kept) if row["size"] < size}
        steps = {name: count for name, count in steps.items() if count}
        found = measure(size, repeats if size <= 2000 else 1, steps, contenders)
        kept |= {(row["size"], row["contender"]): row for row in found}
        write_result(arguments.output, settings, _by_size(kept))


def _by_size(kept: dict[tuple[int, str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the table."""
    return [kept[key] for key in sorted(kept, key=lambda key: (key[0], ALL.index(key[1])))]


if __name__ == "__main__":
    main()
