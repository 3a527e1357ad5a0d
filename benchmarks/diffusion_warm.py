"""Compile the programs of the diffusion benchmark at once, while its base model is trained.

Tracing and compiling take most of a short run on an accelerator, and know nothing of weights: with
random ones every method's programs are compiled side by side, into the cache that
`JAX_COMPILATION_CACHE_DIR` names.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.diffusion_methods import Contender, compiled
from benchmarks.diffusion_models import Setup, customise, draw_set, generate
from jaxinf.engine import Stream, as_source
from jaxinf.engine.batching import pad_rows
from jaxinf.influence import Attributor
from jaxinf.models.diffusion import EDM, init_params


def start(
    setup: Setup,
    model: EDM,
    images: Any,
    methods: list[Contender],
    divisors: dict[str, Attributor],
) -> list[threading.Thread]:
    """Begin to compile; join the threads before the first set."""
    params = init_params(model, jax.random.key(5))
    chosen = draw_set(setup, images, 0)
    rows = np.arange(2 * setup.images)
    queries: Any = {name: a[rows] for name, a in chosen.candidates.items()}
    train: Any = as_source(chosen.candidates)

    def scoring(attributor: Attributor) -> None:
        size = min(125, len(chosen.candidates["y"]))
        state = attributor.prepare(params, queries, Stream(train, size))
        batch = pad_rows(jax.tree.map(lambda a: a[:size], chosen.candidates), size)
        compiled(attributor.score).lower(state, batch).compile()

    def tuning() -> None:
        tuned = customise(setup, model, params, chosen, 1, 0)
        generate(setup, model, tuned, chosen.label, 0)

    jobs: dict[str, Callable[[], None]] = {"tuning": tuning}
    for method in methods:
        jobs[method.name] = lambda given=method.attributor: scoring(given)
    for name, divisor in divisors.items():
        jobs[name] = lambda given=divisor: scoring(given)

    def run(name: str, job: Callable[[], None]) -> None:
        began = time.perf_counter()
        job()
        spent = time.perf_counter() - began
        print(f"  compiled: {name}, {spent:.0f} s", file=sys.stderr, flush=True)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in jobs.items()]
    for thread in threads:
        thread.start()
    return threads
