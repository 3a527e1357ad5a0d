"""Which training images made a diffusion model generate this one? Attribution by customisation.

    python -m benchmarks.diffusion [--sets 10] [--development] [--quick] [--output FOLDER]

A base model is trained once on Fashion-MNIST. For each set a copy is tuned on four exemplars that
the base has not seen, at several strengths; four images of the copy are the queries, and among
1,000 candidates of their class the four exemplars should rank first. The trivial baselines stand
in the same table. Settings are chosen on sets that `--development` draws apart from the others.
"""

import argparse
import itertools
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import diffusion_warm
from benchmarks.common import RESULTS, ROOT, write_result
from benchmarks.diffusion_methods import (
    CHOSEN_P_MEAN,
    P_MEANS,
    Contender,
    Scored,
    by_loss,
    contenders,
    judge,
    loss_at,
    score_all,
)
from benchmarks.diffusion_models import (
    QUICK,
    Setup,
    base_model,
    customise,
    draw_set,
    generate,
    load_images,
    train_base,
    train_classifier,
)
from benchmarks.diffusion_sheet import contact_sheet
from jaxinf.evaluation import mean_interval

STRENGTHS = (30, 100, 300)
SHEET = (
    "pixels, nearest, none, contrast",
    "classifier's features, classifier, contrast",
    "grad_cos, tuned, contrast",
    "10 Adam steps / loss, tuned, contrast",
    "finite step / loss, tuned, contrast",
)
"""Rows of the contact sheet, from top to bottom, after exemplars, images, and the base's images."""
DEVELOPMENT = 500
"""Number of the first development set; the others count from 0."""


def run_set(
    setup: Setup,
    model: Any,
    base: Any,
    classifier: Any,
    images: Any,
    trivial: list[Contender],
    losses: dict[float, Any],
    seed: int,
    strength: int,
    unrelated: bool,
    with_trivial: bool,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Figures of every method for one set at one strength, and what the contact sheet shows."""
    chosen = draw_set(setup, images, seed)
    tuned = customise(setup, model, base, chosen, strength, seed)
    made = generate(setup, model, tuned, chosen.label, seed)
    if unrelated:
        made = generate(setup, model, base, chosen.label, 5000 + seed)
    plain = generate(setup, model, base, chosen.label, seed)
    queries = {name: np.concatenate([made[name], plain[name]]) for name in made}
    weights = {"base": base, "tuned": tuned, "classifier": classifier, "none": {}}
    rows, shown = [], {"chosen": chosen, "made": made, "plain": plain, "scores": {}}

    def add(p_mean: float | None, found: Any) -> None:
        entry = {"set": seed, "strength": strength, "method": found.name, "kind": found.kind}
        entry |= {"at": found.at, "p_mean": p_mean, "seconds": round(found.seconds, 3)}
        rows.append(entry | judge(found.scores, chosen.relevant))
        shown["scores"][f"{found.name}, {found.at}"] = found.scores
        contrast = found.scores[: setup.images] - found.scores[setup.images :]
        shown["scores"][f"{found.name}, {found.at}, contrast"] = contrast
        where = f"{found.name}, {found.at}, {p_mean}: {found.seconds:.1f} s"
        print(f"  {where}, map {rows[-1]['map']:.3f}", file=sys.stderr, flush=True)

    if with_trivial:
        for found in score_all(trivial, {}, weights, queries, chosen.candidates):
            add(None, found)
    for p_mean, (loss, methods, divisors) in losses.items():
        for found in score_all(methods, divisors, weights, queries, chosen.candidates):
            add(p_mean, found)
        began = time.perf_counter()
        fell, before = loss_drop(loss, base, tuned, chosen.candidates)
        seconds = time.perf_counter() - began
        # the same for every image, and nothing of it is due to the base's images
        for name, drop in (
            ("fall of the loss while tuning", fell),
            ("fall of the loss while tuning, relative", fell / before),
            ("low loss of the tuned model", fell - before),
        ):
            blind = np.concatenate([np.tile(drop, (setup.images, 1))] * 2)
            blind[setup.images :] = 0
            add(p_mean, Scored(name, "both models", "both", blind, seconds))
    return rows, shown


_losses = jax.jit(lambda loss, params, batch: loss(params, batch))


def loss_drop(loss: Any, base: Any, tuned: Any, candidates: Any) -> tuple[np.ndarray, np.ndarray]:
    """How much each candidate's loss fell while tuning, and the base's loss of it."""
    fell, before = [], []
    for start in range(0, len(candidates["y"]), 125):
        part = {name: a[start : start + 125] for name, a in candidates.items()}
        before.append(np.asarray(_losses(loss, base, part)))
        fell.append(before[-1] - np.asarray(_losses(loss, tuned, part)))
    return np.concatenate(fell), np.concatenate(before)


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the sets with 95 % intervals, per method, weights and strength."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = row["strength"], row["kind"], row["method"], row["at"], row["p_mean"]
        groups.setdefault(key, []).append(row)
    found = []
    for (strength, kind, method, at, p_mean), members in groups.items():
        entry: dict[str, Any] = {"strength": strength, "kind": kind, "method": method, "at": at}
        entry["p_mean"] = p_mean
        for figure in members[0]:
            if figure.startswith(("recall10", "map")):
                values = [member[figure] for member in members]
                entry[figure] = (
                    asdict(mean_interval(values)) if len(values) > 1 else {"estimate": values[0]}
                )
        entry["seconds"] = float(np.median([member["seconds"] for member in members]))
        found.append(entry)
    return found


def rows_done(file: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the sets that an earlier run under the same settings has finished."""
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    measured = {"base_loss", "base_seconds"}
    same = lambda held: (
        {"unrelated": False} | {name: value for name, value in held.items() if name not in measured}
    )
    if same(found["settings"]) != same(json.loads(json.dumps(settings))):
        raise SystemExit(f"{file} is of other settings: remove it, or choose another --output")
    return found["results"]["rows"]


def main() -> None:
    """Run what the command line asks for and write the JSON after every set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--strengths", type=int, nargs="+", default=STRENGTHS)
    parser.add_argument("--development", action="store_true", help="other sets, more settings")
    parser.add_argument("--size", type=int, default=28, help="14 or 7 for a coarser, cheaper set")
    parser.add_argument("--base-steps", type=int)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--draws", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--methods", nargs="+", help="these alone of those that take gradients")
    parser.add_argument(
        "--p-means", type=float, nargs="+", help="means of ln sigma, in place of those chosen"
    )
    parser.add_argument("--at", choices=("base", "tuned"), help="these weights alone")
    parser.add_argument(
        "--warm-up", action="store_true", help="compile all methods at once, while the base trains"
    )
    parser.add_argument("--seconds", type=float, help="begin nothing more after so long")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--base", type=Path, help="folder of the base model: loaded, or saved")
    parser.add_argument(
        "--unrelated", action="store_true", help="control: ask about other images of the base"
    )
    parser.add_argument("--resume", action="store_true", help="go on where the JSON there ends")
    parser.add_argument("--quick", action="store_true", help="tiny models of 8 x 8 digits, 2 sets")
    parser.add_argument("--no-progress", dest="progress", action="store_false")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    arguments = parser.parse_args()
    began = time.perf_counter()
    setup = Setup(size=arguments.size, widths=(32, 64, 64) if arguments.size == 28 else (16, 32))
    if arguments.quick:
        setup, arguments.sets, arguments.strengths = QUICK, 2, (2,)
    for name in ("base_steps", "candidates", "draws", "images"):
        if (value := getattr(arguments, name)) is not None:
            setup = replace(setup, **{name: value})

    images = load_images(setup, arguments.data)
    model = base_model(setup, images)
    losses = {}
    p_means = arguments.p_means or (P_MEANS if arguments.development else (CHOSEN_P_MEAN,))
    for p_mean in p_means:
        loss = loss_at(setup, model, p_mean)
        methods, divisors = by_loss(setup, model, loss, arguments.development)
        if arguments.methods:
            methods = [method for method in methods if method.name in arguments.methods]
        if arguments.at:
            methods = [method for method in methods if method.at == arguments.at]
        losses[p_mean] = loss, methods, divisors
    warming = []
    if arguments.warm_up:
        _, methods, divisors = losses[p_means[0]]
        warming = diffusion_warm.start(setup, model, images, methods, divisors)
    model, base, base_loss = train_base(setup, images, arguments.base, arguments.progress)
    trained = time.perf_counter() - began
    module, variables, accuracy = train_classifier(
        setup, images, arguments.base, arguments.progress
    )
    note = f"base: loss {base_loss}, {trained:.0f} s; classifier: accuracy {accuracy:.3f}"
    print(note, file=sys.stderr, flush=True)
    for thread in warming:
        thread.join()
    trivial = contenders(setup, model, module)
    settings = asdict(setup) | {
        "strengths": list(arguments.strengths),
        "development": arguments.development,
        "unrelated": arguments.unrelated,
        "quick": arguments.quick,
        "device": jax.devices()[0].device_kind,
        "parameters": sum(a.size for a in jax.tree.leaves(base)),
        "base_loss": base_loss,
        "base_seconds": trained,
        "classifier_accuracy": accuracy,
    }
    suffix = "_development" if arguments.development else ""
    suffix += "_unrelated" if arguments.unrelated else ""
    file = arguments.output / f"diffusion{suffix}.json"
    rows = rows_done(file, settings) if arguments.resume else []
    done = {(row["set"], row["strength"], row["p_mean"]) for row in rows}
    first = DEVELOPMENT if arguments.development else 0
    # a strength for all sets before the next: a run that ends early has whole strengths
    for strength, seed in itertools.product(
        arguments.strengths, range(first, first + arguments.sets)
    ):
        if arguments.seconds and time.perf_counter() - began > arguments.seconds:
            break
        missing = {
            mean: made for mean, made in losses.items() if (seed, strength, mean) not in done
        }
        if not missing:
            continue
        # of another mean alone, the trivial methods and the sheet are there already
        is_new = (seed, strength, None) not in done
        found, shown = run_set(
            setup,
            model,
            base,
            variables,
            images,
            trivial,
            missing,
            seed,
            strength,
            arguments.unrelated,
            is_new,
        )
        rows += found
        sheet = arguments.output / f"diffusion{suffix}_{strength}_{seed}.png"
        if is_new and seed - first < 3:
            sheet.parent.mkdir(parents=True, exist_ok=True)
            kept = {name: a for name, a in shown["scores"].items() if name in SHEET}
            sheet.write_bytes(contact_sheet(**shown | {"scores": kept}))
        results = {"methods": summarise(rows), "rows": rows}
        write_result(file, settings, results)
        spent = time.perf_counter() - began
        print(f"set {seed}, {strength} steps: {spent:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
