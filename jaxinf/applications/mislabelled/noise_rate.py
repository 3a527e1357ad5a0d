"""How many labels are wrong? Two estimates, each with an assumption of its own."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, check_labels, require_extra


class NoiseRate(NamedTuple):
    """An estimated share of wrong labels.

    Attributes:
        rate: 0 to 1.
        joint: float[C, C], estimated shares of the examples by (given class, true class), which
            sum to 1; None where the estimate knows no classes.
    """

    rate: float
    joint: Float[np.ndarray, "C C"] | None = None


def class_thresholds(log_probabilities: ArrayLike, labels: ArrayLike) -> Float[np.ndarray, " C"]:
    """Mean probability of each class among the examples that carry it; 1 for a class without any.

    Example:
        >>> class_thresholds(np.log([[0.5, 0.5], [0.25, 0.75]]), [0, 1]).round(3).tolist()
        [0.5, 0.75]
    """
    logs, y = check_log_probabilities(log_probabilities, labels)
    own = np.exp(logs[np.arange(len(y)), y])
    counts = np.bincount(y, minlength=logs.shape[1])
    total = np.bincount(y, own, minlength=logs.shape[1])
    return np.where(counts > 0, total / np.maximum(counts, 1), 1.0)


def confident_joint(log_probabilities: ArrayLike, labels: ArrayLike) -> NoiseRate:
    """Count the examples that are confidently of another class than their label says.

    An example is counted for the most probable of those classes whose probability is at least the
    mean over the examples labelled so; rows are then scaled to the classes' numbers.

    Assumes: out-of-fold probabilities; noise that depends on the class and not on the example;
    and a right label that is, for every class, more often the confident one than any wrong label.

    Args:
        log_probabilities: float[N, C], out of fold, as from `cross_fit`.
        labels: int[N], 0 to C − 1, as given.

    Returns:
        The rate, and the joint distribution.

    Raises:
        InputError: for shapes that do not match, NaN, or labels out of range.

    Reference:
        Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset
        Labels", JAIR 70, 2021, section 3.1.

    Example:
        >>> sure = np.log([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
        >>> round(confident_joint(sure, [0, 0, 1, 1]).rate, 3)
        0.25
    """
    logs, y = check_log_probabilities(log_probabilities, labels)
    probability = np.exp(logs)
    # a mean rounds: what equals it must pass
    passes = probability >= class_thresholds(logs, y)[None] * (1 - 1e-9)
    counted = passes.any(axis=1)
    best = np.where(passes, probability, -1.0).argmax(axis=1)
    joint = np.zeros((logs.shape[1],) * 2)
    np.add.at(joint, (y[counted], best[counted]), 1.0)
    sizes = np.bincount(y, minlength=len(joint))
    rows = joint.sum(axis=1)
    # a class of which nobody is confident says nothing of its noise: taken as clean
    np.fill_diagonal(joint, np.where(rows > 0, np.diag(joint), 1.0))
    joint *= (sizes / joint.sum(axis=1))[:, None] / len(y)
    return NoiseRate(float(1 - np.trace(joint)), joint)


def mixture_noise_rate(suspicion: ArrayLike, *, seed: int = 0) -> NoiseRate:
    """Share of the upper of two Gaussians fitted to the scores.

    Assumes: the scores of right and of wrong labels are two heaps, each near normal. On a skewed
    single heap, such as losses near zero with a tail, the rate means little: out-of-fold margins
    suit it best.

    Args:
        suspicion: float[N], higher = more suspect, N at least 10.
        seed: where the fit starts.

    Returns:
        The rate: the mean posterior of the component of larger mean.

    Raises:
        InputError: fewer than 10 scores, NaN or infinities, or no spread.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scores = np.concatenate([rng.normal(size=80), rng.normal(9, 1, size=20)])
        >>> round(mixture_noise_rate(scores).rate, 2)
        0.2
    """
    scores = np.asarray(suspicion, np.float64)
    if scores.ndim != 1 or len(scores) < 10 or not np.isfinite(scores).all():
        raise InputError(
            f"suspicion has shape {scores.shape}: at least 10 finite scores are needed"
        )
    # a few extreme scores would be a component by themselves
    scores = np.clip(scores, *np.quantile(scores, [0.005, 0.995]))
    if not np.ptp(scores) > 0:
        raise InputError("all scores are alike: no two components can be told apart")
    mixture = require_extra("sklearn.mixture", "cli")
    standard = ((scores - scores.mean()) / scores.std())[:, None]
    fitted = mixture.GaussianMixture(2, n_init=3, random_state=seed).fit(standard)
    upper = int(np.argmax(fitted.means_[:, 0]))
    return NoiseRate(float(fitted.predict_proba(standard)[:, upper].mean()))


def check_log_probabilities(
    log_probabilities: ArrayLike, labels: ArrayLike
) -> tuple[Float[np.ndarray, "N C"], Int[np.ndarray, " N"]]:
    """Bring log-probabilities (or logits) and labels to float64 and int64, normalised and checked.

    Raises:
        InputError: for shapes that do not match, NaN, or labels out of range.

    Example:
        >>> check_log_probabilities([[0.0, 0.0]], [1])[0].round(3).tolist()
        [[-0.693, -0.693]]
    """
    logs, y = np.asarray(log_probabilities, np.float64), np.asarray(labels)
    if logs.ndim != 2 or not logs.size or logs.shape[1] < 2:
        raise InputError(f"log-probabilities have shape {logs.shape}: [N, C] with C ≥ 2 is needed")
    if y.shape != logs.shape[:1]:
        raise InputError(f"{len(logs)} predictions and labels of shape {y.shape}: one label each")
    if not np.isfinite(logs.max(axis=1)).all() or np.isnan(logs).any():
        raise InputError("log-probabilities hold NaN, or rows without any finite entry")
    check_labels(y, logs.shape[1], "labels")
    top = logs.max(axis=1, keepdims=True)
    total = np.log(np.exp(logs - top).sum(axis=1, keepdims=True)) + top
    return logs - total, y.astype(np.int64)
