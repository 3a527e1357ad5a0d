"""Are differences of denoising losses noise? Common random numbers against independent ones.

    python -m benchmarks.diffusion_draws --base FOLDER [--quick] [--output FOLDER]

How well do the scores of 200 candidates agree with those from other draws? The step on a query is
one, by Adam from the base model; the change of every candidate's loss along it is measured twice,
with T draws each, by common numbers (the same for all candidates and before and after the step),
by numbers of each candidate's own, and by new numbers after the step. The figure is Spearman's
correlation of the two measurements; 1 is a score without noise.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.common import RESULTS, ROOT, write_result
from benchmarks.diffusion_models import QUICK, Setup, draw_set, load_images, train_base
from jaxinf.applications.diffusion import NoiseDraws, denoising_loss, draw_noise
from jaxinf.evaluation import mean_interval
from jaxinf.influence import forward_inf_jvp
from jaxinf.models.diffusion import weighted_error

WAYS = ("common", "each image its own", "new after the step")


def measurement(model: Any, draws: int) -> Any:
    """`(way, key, before, after, batch) -> float[B]`: the change of each image's loss."""

    def change(way: str, key: jax.Array, before: Any, after: Any, batch: Any) -> jax.Array:
        first, second = jax.random.split(key)
        if way != "each image its own":
            again = first if way == "common" else second
            loss = lambda key, params: denoising_loss(
                model, draw_noise(key, draws, model.image_shape)
            )(params, batch)
            return loss(first, before) - loss(again, after)

        def one(key: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            drawn: NoiseDraws = draw_noise(key, draws, model.image_shape)
            given = jnp.repeat(x[None], draws, 0), drawn.noise, drawn.sigma, jnp.repeat(y, draws)
            errors = [weighted_error(model, params, *given) for params in (before, after)]
            return jnp.mean(errors[0] - errors[1])

        return jax.vmap(one)(jax.random.split(first, len(batch["y"])), batch["x"], batch["y"])

    return jax.jit(change, static_argnums=0)


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, help="folder of the base model: loaded, or saved")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--size", type=int, default=28, help="14 for a base model of that size")
    parser.add_argument("--base-steps", type=int, help="of the base model, trained or loaded")
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--draws", type=int, nargs="+", default=(1, 4, 16, 64))
    parser.add_argument("--quick", action="store_true", help="tiny models of 8 x 8 digits")
    parser.add_argument("--no-progress", dest="progress", action="store_false")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    setup = Setup(size=arguments.size, widths=(32, 64, 64) if arguments.size == 28 else (16, 32))
    if arguments.quick:
        setup, arguments.queries, arguments.draws = QUICK, 2, (2,)
    if arguments.base_steps is not None:
        setup = replace(setup, base_steps=arguments.base_steps)
    images = load_images(setup, arguments.data)
    model, base, _ = train_base(setup, images, arguments.base, arguments.progress)
    queries = [draw_set(setup, images, 900 + q) for q in range(arguments.queries)]
    # the step itself is taken with draws of its own, many of them
    step = denoising_loss(model, draw_noise(jax.random.key(1), setup.draws, model.image_shape))
    direction = forward_inf_jvp(
        step, optimizer=optax.adam(1e-3), steps=2 if arguments.quick else 10
    )
    found = {(way, count): [] for count in arguments.draws for way in WAYS}
    measures = {count: measurement(model, count) for count in arguments.draws}
    for number, asked in enumerate(queries):
        query = {name: a[:1] for name, a in asked.exemplars.items()}
        moved = direction.prepare(base, query).directions
        after = jax.tree.map(lambda p, d: p + d[0], base, moved)
        batch = {name: a[:200] for name, a in asked.candidates.items()}
        for count, measure in measures.items():
            for way in WAYS:
                keys = [jax.random.key(10 * number + i) for i in range(2)]
                twice = [np.asarray(measure(way, key, base, after, batch)) for key in keys]
                found[way, count].append(_spearman(*twice))
    results = [
        {"way": way, "draws": count} | asdict(mean_interval(values)) | {"raw": values}
        for (way, count), values in found.items()
    ]
    settings = asdict(setup) | {
        "queries": arguments.queries,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
    }
    write_result(arguments.output / "diffusion_draws.json", settings, results)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


if __name__ == "__main__":
    main()
