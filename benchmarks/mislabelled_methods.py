"""What `benchmarks.mislabelled` trains, and every method's suspicion of one training set."""

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from benchmarks.mislabelled_sets import Case, Data
from jaxinf import valuation
from jaxinf.adapters import stateful_from_linen
from jaxinf.applications.mislabelled import (
    METHODS,
    Evidence,
    cross_fit,
    cross_fit_logistic,
    find_mislabelled,
    network_loss,
    train_models,
)
from jaxinf.applications.mislabelled.evidence import Running
from jaxinf.applications.mislabelled.with_trusted import minus_influence
from jaxinf.applications.mislabelled.without_trusted import own_loss
from jaxinf.influence import tracin
from jaxinf.influence.ground_truth import retrain_on_subsets, sgd_trainer
from jaxinf.models import MLP, SmallCNN, cross_entropy

EPOCHS, EARLY_EPOCHS, BATCH, RATE, EARLY = 15, 2, 50, 2e-3, 4
FOLDS = 5

# name -> (forward-only, needs the trusted set); those of the library know it themselves
BASELINES = {
    "trusted_tracin": (False, True),
    "knn_shapley": (None, True),
    "lava": (None, True),
    "nearest_validation": (None, True),
    "trusted_logistic": (None, True),
    "out_of_fold_logistic": (None, False),
    "knn_vote": (None, False),
    "cleanlab": (None, False),
}


def network(data: Data, num_classes: int) -> nn.Module:
    """The classifier of a set."""
    return SmallCNN(num_classes) if data.hidden is None else MLP(data.hidden, num_classes)


@functools.cache
def optimizer() -> optax.GradientTransformation:
    """Of every training, chosen on the development part."""
    return optax.adam(RATE)


@functools.cache
def train_fn(module: nn.Module, shape: tuple[int, ...], epochs: int, tested: bool) -> Any:
    """`(data, key, rows) -> parameters`, or accuracy on `data["test"]`; compiled once."""
    like = {"x": np.zeros((1, *shape), np.float32), "y": np.zeros(1, np.int32)}
    init = lambda key: (module.init(key, jnp.asarray(like["x"]))["params"], {})
    variables = module.init(jax.random.key(0), jnp.asarray(like["x"]))
    loss, _ = stateful_from_linen(module, variables, cross_entropy)
    options = {"optimizer": optimizer(), "num_epochs": epochs, "batch_size": BATCH}
    keep = lambda params, state: params
    train = sgd_trainer(loss, init, like, outputs=keep, **options).func

    def run(data: Any, key: jax.Array, rows: jax.Array) -> Any:
        params = train(data["train"], key, rows)
        if not tested:
            return params
        logits = module.apply({"params": params}, data["test"]["x"])
        return jnp.mean(logits.argmax(axis=1) == data["test"]["y"])

    return run


def train_on(
    module: nn.Module,
    sides: dict[str, dict[str, np.ndarray]],
    subsets: np.ndarray,
    epochs: int,
    key: jax.Array,
) -> Any:
    """Models of subsets of `sides["train"]`: their parameters, or accuracy on `sides["test"]`."""
    plain = {
        name: {part: jnp.asarray(side[part]) for part in ("x", "y")} for name, side in sides.items()
    }
    run = train_fn(module, sides["train"]["x"].shape[1:], epochs, "test" in sides)
    return retrain_on_subsets(
        Partial(run, plain), subsets, key=key, models_at_once=len(subsets), progress=False
    )


def gather(case: Case, data: Data, seed: int) -> tuple[Evidence, dict[str, float]]:
    """Train everything that the methods look at; with the seconds that each part took."""
    module = network(data, case.num_classes)
    plain = {"x": case.train["x"], "y": case.train["y"]}
    keys = jax.random.split(jax.random.key(seed), 4)
    seconds = {}

    def timed(name: str, make: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = jax.block_until_ready(make())
        seconds[name] = time.perf_counter() - began
        return found

    options: dict[str, Any] = {
        "optimizer": optimizer(),
        "batch_size": BATCH,
        "progress": False,
    }
    train = lambda key, count, epochs: train_models(
        module, plain, case.num_classes, num_models=count, num_epochs=epochs, key=key, **options
    )
    full = timed("params", lambda: train(keys[0], 1, EPOCHS))
    early = timed("checkpoints", lambda: train(keys[1], EARLY, EARLY_EPOCHS))
    out_of_fold = timed(
        "out_of_fold",
        lambda: cross_fit(
            module,
            plain,
            case.num_classes,
            num_epochs=EPOCHS,
            key=keys[2],
            num_folds=FOLDS,
            seed=seed,
            **options,
        ),
    )
    loss = network_loss(module)
    trusted = {"x": case.trusted["x"], "y": case.trusted["y"]}
    first = jax.tree.map(lambda a: jnp.asarray(a[0]), full)
    early = jax.tree.map(jnp.asarray, early)
    evidence = Evidence(plain, loss, first, trusted, out_of_fold, early, keys[3])
    return evidence, seconds


@functools.cache
def _tracin(loss: Any) -> Any:
    return tracin(loss, [1 / EARLY] * EARLY)


def suspicions(
    case: Case, evidence: Evidence, wanted: list[str] | None = None
) -> Iterator[tuple[str, np.ndarray, float]]:
    """Every method's scores and seconds, less what the evidence cost."""
    own = {
        name: lambda name=name: find_mislabelled(evidence, name, budget=0, batch_size=500).suspicion
        for name in METHODS
    }
    for name, score in (own | _baselines(case, evidence)).items():
        if wanted is not None and name not in wanted:
            continue
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", valuation.ValuationWarning)
            found = score()
        if found is not None:
            yield name, np.asarray(found, np.float64), time.perf_counter() - began


def _baselines(case: Case, evidence: Evidence) -> dict[str, Callable[[], Any]]:
    train, trusted = case.train, case.trusted
    sides = train["features"], train["y"], trusted["features"], trusted["y"]
    running = Running(500, None, False)

    def logistic_on_trusted() -> np.ndarray:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
        model.fit(trusted["features"], trusted["y"])
        logs = np.full((len(train["y"]), case.num_classes), -30.0)
        logs[:, model.classes_] = np.maximum(model.predict_log_proba(train["features"]), -30)
        return own_loss(logs, train["y"])

    return {
        "trusted_tracin": lambda: minus_influence(
            _tracin(evidence.loss), evidence, running, evidence.checkpoints
        ),
        "knn_shapley": lambda: -np.asarray(valuation.knn_shapley(*sides).values),
        "lava": lambda: -np.asarray(valuation.lava(*sides).values),
        "nearest_validation": lambda: -np.asarray(valuation.nearest_validation(*sides).values),
        "trusted_logistic": logistic_on_trusted,
        "out_of_fold_logistic": lambda: own_loss(
            cross_fit_logistic(train["features"], train["y"], case.num_classes, l2=20.0),
            train["y"],
        ),
        "knn_vote": lambda: _knn_vote(train["features"], train["y"]),
        "cleanlab": lambda: _cleanlab(np.asarray(evidence.out_of_fold), train["y"]),
    }


def _knn_vote(features: np.ndarray, labels: np.ndarray, neighbours: int = 10) -> np.ndarray:
    """Share of the nearest neighbours that carry another label."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=neighbours + 1).fit(features)
    near = index.kneighbors(features, return_distance=False)[:, 1:]
    return (labels[near] != labels[:, None]).mean(axis=1)


def _cleanlab(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """The peer's own ranking of the same out-of-fold predictions; None where it is missing."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    probabilities = np.exp(np.asarray(log_probabilities, np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return -get_label_quality_scores(labels, probabilities, adjust_pred_probs=True)
