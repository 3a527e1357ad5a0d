"""Does the mirror hold? Leave-one-out against its mirror, on convex models and on networks.

    python -m benchmarks.mirrored_hypothesis [--sets mnist,fashion_mnist] [--rows 1000] [--quick]

Convex: multinomial logistic regression in float64, every model to a gradient norm of 1e-10; 4,900
training points, the 10 test points of highest loss, weight decay 0.01 as in the paper, and weaker
penalties beyond it, to see where the mirror breaks. Of the training points a random sample is left
out, as `--rows` says; the mirror scores all of them, and the correlations are over the sample.

Masses (`--parts masses`): see `benchmarks.mirrored_masses`; a folder of `--plots` in which the
convex part left its points spares the leave-one-out.

Groups on networks: see `benchmarks.mirrored_groups`.

Every row of the JSON holds the settings it was run with; `--resume` runs what is not there yet, and
works out the figures of the groups anew from the losses that are kept.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import RESULTS, ROOT, cores, write_result
from benchmarks.mirrored_groups import (
    KINDS,
    Training,
    agreement,
    influences,
    make_experiment,
    make_trainer,
    train_all,
)
from benchmarks.mirrored_masses import by_mass
from jaxinf.datasets import load_digits
from jaxinf.datasets.npz import read_npz
from jaxinf.engine import data_mesh
from jaxinf.evaluation.loo import loo_correlation
from jaxinf.influence.ground_truth import fit_convex, leave_one_out, mirrored_leave_one_out
from jaxinf.models import cross_entropy

DATA = ROOT.parent / "shared" / "data"
SETS = ("mnist", "fashion_mnist", "digits")
WEIGHT_DECAYS = (1e-2, 1e-3, 1e-4)
# of the released code, least and largest over the ten test points
RELEASED = {
    "mnist": {"pearson": [0.9966, 0.9986], "spearman": [0.855, 0.941]},
    "fashion_mnist": {"pearson": [0.982, 0.9987], "spearman": [0.593, 0.836]},
}
# groups with a swept share of wrong labels on the CNN, 5 seeds
RELEASED_GROUPS = {
    "mnist": {"pearson": 0.9864, "spearman": 0.9915},
    "fashion_mnist": {"pearson": 0.9752, "spearman": 0.9915},
}

Sides = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def load(name: str) -> Sides:
    """Training and test set, pixels in [0, 1]; digits are enlarged to 16x16 for the CNN."""
    if name == "digits":
        enlarge = lambda part: part | {"x": part["x"].repeat(2, axis=1).repeat(2, axis=2)}
        train, test = load_digits()
        return enlarge(train), enlarge(test)
    sides = [read_npz(DATA / f"{name}.npz", f"x_{side}", f"y_{side}") for side in ("train", "test")]
    train, test = ({"x": (s["x"] / 255).astype(np.float32), "y": s["y"]} for s in sides)
    return train, test


def draw(part: dict[str, np.ndarray], count: int, seed: int) -> dict[str, np.ndarray]:
    """A random sample without repeats."""
    rows = np.random.default_rng(seed).permutation(len(part["y"]))[:count]
    return {name: a[rows] for name, a in part.items()}


@contextmanager
def float64() -> Iterator[None]:
    """Float64 inside, on every version of jax."""
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        yield


def logistic_loss(params: Any, batch: Any) -> jax.Array:
    """Cross-entropy of a linear model with a bias."""
    return cross_entropy(batch["x"] @ params["w"] + params["b"][None], batch)


class Convex(NamedTuple):
    """A logistic regression at its minimum.

    Attributes:
        given: loss, parameters, queries and training set.
        losses: float[K], of the queries.
        sample: int[R], training points to leave out.
        gradient_norm: at the minimum.
    """

    given: Any
    losses: np.ndarray
    sample: np.ndarray
    gradient_norm: float


def make_convex(
    name: str, size: int, rows: int, weight_decay: float, sample_seed: int = 0, queries: int = 10
) -> Convex:
    """Train on a sample of one set, and take the test points of highest loss."""
    flat = lambda part: {"x": part["x"].reshape(len(part["y"]), -1).astype(float), "y": part["y"]}
    train, test = (flat(part) for part in load(name))
    train = draw(train, size, seed=sample_seed)
    params = {"w": jnp.zeros((train["x"].shape[1], 10)), "b": jnp.zeros(10)}
    fit = fit_convex(logistic_loss, params, train, l2=weight_decay)
    losses = np.asarray(logistic_loss(fit.params, test))
    hardest = np.argsort(-losses)[:queries]
    chosen = {key: a[hardest] for key, a in test.items()}
    sample = np.sort(np.random.default_rng(1).permutation(len(train["y"]))[:rows])
    given = (logistic_loss, fit.params, chosen, train)
    return Convex(given, losses[hardest], sample, float(fit.gradient_norm))


def convex(
    name: str, size: int, rows: int, weight_decay: float, sample_seed: int = 0, queries: int = 10
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """Leave-one-out and its mirror on one set; the figures, and the two [K, R]."""
    made = make_convex(name, size, rows, weight_decay, sample_seed, queries)
    given, sample = made.given, made.sample
    count = len(given[-1]["y"])
    options: dict[str, Any] = {"l2": weight_decay, "mesh": data_mesh()}

    began = time.perf_counter()
    mirror = mirrored_leave_one_out(*given, **options)
    mirror_seconds = time.perf_counter() - began
    began = time.perf_counter()
    truth = leave_one_out(*given, rows=sample, progress=True, **options)
    truth_seconds = time.perf_counter() - began
    mirrored = mirror.influences[:, sample]
    found = loo_correlation(mirrored, truth.influences)
    scale = [float(a @ b / (b @ b)) for a, b in zip(truth.influences, mirrored, strict=True)]
    worst = int(found.pearson.argmin())
    whole = truth_seconds / len(sample) * count
    figures = {
        "set": name,
        "weight_decay": weight_decay,
        "draw": sample_seed,
        "train": count,
        "left_out": len(sample),
        "query_losses": made.losses.tolist(),
        "pearson": found.pearson.tolist(),
        "spearman": found.spearman.tolist(),
        "truth_per_mirror": scale,
        "largest_gradient_norm": float(
            max(truth.gradient_norms.max(), mirror.gradient_norms.max(), made.gradient_norm)
        ),
        "retrainings_for_all": {"leave_one_out": count, "mirror": queries},
        "seconds": {
            "leave_one_out_sample": truth_seconds,
            "leave_one_out_all_extrapolated": whole,
            "mirror_all": mirror_seconds,
            "ratio_for_all": whole / mirror_seconds,
        },
    }
    # for the figure: the query where the two agree least
    figures["worst_query"] = {
        "mirror": mirrored[worst, :500].tolist(),
        "truth": truth.influences[worst, :500].tolist(),
    }
    if weight_decay == WEIGHT_DECAYS[0]:
        figures["released_code"] = RELEASED.get(name)
    return figures, (truth.influences, mirrored)


def masses(
    name: str,
    size: int,
    rows: int,
    weight_decay: float,
    sample_seed: int,
    wanted: list[float],
    points: Path | None,
) -> list[dict[str, Any]]:
    """The mirror at several masses of the query; `points` may hold the truth of the same run."""
    made = make_convex(name, size, rows, weight_decay, sample_seed)
    options: dict[str, Any] = {"l2": weight_decay, "mesh": data_mesh()}
    truth = None
    if points is not None and points.exists():
        with np.load(points) as kept:
            truth = kept["truth"]
        shape = (len(made.losses), len(made.sample))
        if truth.shape != shape:
            raise SystemExit(f"{points} holds {list(truth.shape)} influences, not {list(shape)}")
    if truth is None:
        truth = leave_one_out(*made.given, rows=made.sample, progress=True, **options).influences
    common = {"set": name, "weight_decay": weight_decay, "draw": sample_seed}
    common |= {"train": len(made.given[-1]["y"]), "left_out": len(made.sample)}
    found = (by_mass(made.given, truth, made.sample, mass, **options) for mass in wanted)
    return [common | row for each in found for row in each]


def groups(
    name: str,
    training: Training,
    seeds: int,
    size: int,
    num_groups: int,
    group_size: int,
    store: Any,
    kinds: tuple[str, ...],
) -> tuple[list[dict[str, Any]], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """All kinds of groups on one set and model; the figures, and truth and mirror [seeds, G]."""
    train, test = load(name)
    experiment = make_experiment(
        draw(train, size, seed=0), draw(test, group_size * num_groups // 3, seed=1),
        num_groups, group_size, seed=2, kinds=kinds,
    )  # fmt: skip
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {kind: [] for kind in kinds}
    label = "_".join((name, training.model, str(size), *kinds))
    began = time.perf_counter()
    trainer = make_trainer(experiment, training)
    for seed in range(seeds):
        folder = None if store is None else Path(store) / f"{label}_{seed}"
        losses = train_all(experiment, trainer, kinds, seed, folder)
        for kind, pair in influences(losses, experiment, kinds).items():
            found[kind].append(pair)
    seconds = time.perf_counter() - began
    rows, pairs = [], {}
    for kind, each in found.items():
        truth, mirror = (np.stack(side) for side in zip(*each, strict=True))
        share = experiment.wrong[experiment.groups[kind]].mean(axis=1)
        pairs[kind] = truth, mirror
        rows.append(
            {"set": name, **training._asdict(), "kind": kind, "seeds": seeds, "seconds": seconds}
            | {"train": size, "group_size": group_size}
            | agreement(truth, mirror, share)
            | ({"released_code": RELEASED_GROUPS.get(name)} if training.model == "cnn" else {})
            | {"wrong_share": share.tolist(), "truth": truth.tolist(), "mirror": mirror.tolist()}
        )
    return rows, pairs


def refreshed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of groups with its figures worked out anew, where it holds what they come from."""
    if "truth" not in row:
        return row
    truth, mirror, share = (np.array(row[key]) for key in ("truth", "mirror", "wrong_share"))
    kept = {key: value for key, value in row.items() if key not in ("halves", "ceiling")}
    return kept | agreement(truth, mirror, share)


def plot(path: Path, panels: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """One panel per entry: the mirror across, the truth upwards."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), squeeze=False)
    for axis, (title, (truth, mirror)) in zip(axes[0], panels.items(), strict=True):
        axis.scatter(mirror, truth, s=8, alpha=0.5, linewidths=0, color="#0072b2")
        axis.set(title=title, xlabel="mirror", ylabel="retrained without")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"wrote {path}")


def _points(folder: Path, name: str, decay: float) -> Path:
    return folder / f"mirrored_convex_{name}_{decay:g}.npz"


def main() -> None:
    """Run what the command line asks for and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default="mnist,fashion_mnist", help=f"of {', '.join(SETS)}")
    parser.add_argument("--parts", default="convex,groups", help="of convex, masses, groups")
    parser.add_argument("--weight-decays", default=",".join(f"{d:g}" for d in WEIGHT_DECAYS))
    parser.add_argument(
        "--draws", type=int, default=1, help="of the training points, at the paper's weight decay"
    )
    parser.add_argument("--first-draw", type=int, default=0, help="skips those before it")
    parser.add_argument("--rows", type=int, default=1000, help="training points left out, of 4,900")
    parser.add_argument("--train", type=int, default=4900, help="training points, convex part")
    parser.add_argument("--masses", default="2,1,0.5,0.1", help="of the query, part masses")
    parser.add_argument("--models", default="mlp,cnn", help="of the groups")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of groups")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--groups", type=int, default=30)
    parser.add_argument("--group-size", type=int, default=100)
    parser.add_argument("--group-train", type=int, default=6000, help="training points, groups")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=100, help="of the groups' networks")
    parser.add_argument("--store", default=None, help="folder: killed group runs resume from it")
    parser.add_argument("--plots", type=Path, default=None, help="folder for figures")
    parser.add_argument(
        "--quick", action="store_true", help="digits, few points, groups and epochs"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument("--resume", action="store_true", help="keep what the JSON has already")
    arguments = parser.parse_args()
    decays = tuple(float(d) for d in arguments.weight_decays.split(","))
    if arguments.quick:
        arguments.sets, arguments.rows, arguments.train, decays = "digits", 40, 300, (1e-2, 1e-4)
        arguments.seeds, arguments.groups, arguments.group_size = 2, 5, 10
        arguments.group_train, arguments.epochs = 200, 3
    sets = arguments.sets.split(",")
    if unknown := set(sets) - set(SETS):
        parser.error(f"unknown set {sorted(unknown)[0]}: of {', '.join(SETS)}")
    jax.config.update("jax_num_cpu_devices", cores())
    path = arguments.output / "mirrored_hypothesis.json"
    results: dict[str, list[Any]] = {"convex": [], "masses": [], "groups": []}
    if arguments.resume and path.exists():
        results |= json.loads(path.read_text())["results"]
    results["groups"] = [refreshed(row) for row in results["groups"]]
    done = {(r["set"], r["weight_decay"], r["draw"]) for r in results["convex"]}
    done |= {(r["set"], r["mass"], r.get("draw", 0), "mass") for r in results["masses"]}
    done |= {(r["set"], r["model"], r["train"], r["kind"]) for r in results["groups"]}
    settings = {
        key: value
        for key, value in vars(arguments).items()
        if key not in ("output", "plots", "resume", "store")
    }
    settings |= {"weight_decays": decays, "cores": cores(), "device": jax.devices()[0].device_kind}
    for name in sets:
        samples = range(arguments.first_draw, arguments.draws)
        runs = [(decay, 0) for decay in decays if 0 in samples]
        runs += [(WEIGHT_DECAYS[0], sample) for sample in samples if sample]
        for decay, sample in runs if "convex" in arguments.parts else ():
            if (name, decay, sample) in done:
                continue
            with float64():
                row, pair = convex(name, arguments.train, arguments.rows, decay, sample)
            results["convex"].append(row | {"settings": settings})
            if arguments.plots and not sample:
                arguments.plots.mkdir(parents=True, exist_ok=True)
                np.savez(_points(arguments.plots, name, decay), truth=pair[0], mirror=pair[1])
            low, high = min(row["spearman"]), max(row["spearman"])
            print(f"{name}, weight decay {decay:g}: Spearman {low:.3f} to {high:.3f}", flush=True)
            write_result(path, settings, results)
        for sample in samples if "masses" in arguments.parts else ():
            wanted = [float(mass) for mass in arguments.masses.split(",")]
            wanted = [mass for mass in wanted if (name, mass, sample, "mass") not in done]
            if not wanted:
                continue
            decay, points = WEIGHT_DECAYS[0], None
            if arguments.plots and not sample:
                points = _points(arguments.plots, name, decay)
            with float64():
                rows = masses(name, arguments.train, arguments.rows, decay, sample, wanted, points)
            results["masses"] += [row | {"settings": settings} for row in rows]
            write_result(path, settings, results)
        panels = {}
        for decay in WEIGHT_DECAYS if arguments.plots else ():
            if (points := _points(arguments.plots, name, decay)).exists():
                with np.load(points) as kept:
                    panels[f"weight decay {decay:g}"] = kept["truth"], kept["mirror"]
        if panels:
            plot(arguments.plots / f"mirrored_convex_{name}.png", panels)
        for model in arguments.models.split(",") if "groups" in arguments.parts else ():
            training = Training(model, arguments.epochs, arguments.batch_size, 0.02)
            size, kinds = arguments.group_train, arguments.kinds.split(",")
            kinds = tuple(kind for kind in kinds if (name, model, size, kind) not in done)
            if not kinds:
                continue
            rows, pairs = groups(
                name, training, arguments.seeds, size, arguments.groups, arguments.group_size,
                arguments.store, kinds,
            )  # fmt: skip
            results["groups"] += [row | {"settings": settings} for row in rows]
            for row in rows:
                print(f"{name}, {model}, {row['kind']}: Spearman {row['spearman']:.3f}", flush=True)
            if arguments.plots:
                means = {k: (t.mean(axis=0), m.mean(axis=0)) for k, (t, m) in pairs.items()}
                plot(arguments.plots / f"mirrored_groups_{name}_{model}_{size}.png", means)
            write_result(path, settings, results)


if __name__ == "__main__":
    main()
