"""Small convex problems whose optimum, inverse curvature and retraining are known in closed form.

Everything here is NumPy in float64, and takes nothing from the package.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

PENALTY = 0.05  # ½ · PENALTY · ‖θ‖² beside the mean loss
CLASSES = 3


class Convex(NamedTuple):
    """A trained model, its data, and per-example gradients and the Hessian by hand."""

    loss_fn: object
    params: object
    queries: dict
    train: dict
    query_gradients: np.ndarray  # [K, P]
    train_gradients: np.ndarray  # [N, P]
    hessian: np.ndarray  # [P, P], of the mean loss; the penalty is not in it

    @property
    def influence(self) -> np.ndarray:
        """⟨∇ℓ(q), (H + PENALTY)⁻¹ ∇ℓ(z)⟩ / N."""
        size = self.hessian.shape[0]
        solved = np.linalg.solve(self.hessian + PENALTY * np.eye(size), self.train_gradients.T)
        return self.query_gradients @ solved / len(self.train_gradients)


def make_data(num_train=40, num_queries=5, width=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_train + num_queries, width))
    target = x @ rng.normal(size=width) + 0.3 * rng.normal(size=len(x))
    label = np.argmax(x @ rng.normal(size=(width, CLASSES)) + rng.gumbel(size=(len(x), CLASSES)), 1)
    return x, target, label.astype(np.int32), slice(num_train), slice(num_train, None)


def ridge(dtype=np.float32) -> Convex:
    """Squared error of a linear model, at its optimum."""
    x, y, _, train, queries = make_data()
    w = fit_ridge(x[train], y[train])
    gradients = (x @ w - y)[:, None] * x
    split = lambda part: {"x": x[part].astype(dtype), "y": y[part].astype(dtype)}
    return Convex(
        ridge_loss,
        jnp.asarray(w, dtype),
        split(queries),
        split(train),
        gradients[queries],
        gradients[train],
        x[train].T @ x[train] / len(x[train]),
    )


def ridge_loss(w, batch):
    return (batch["x"] @ w - batch["y"]) ** 2 / 2


def fit_ridge(x, y, count=None):
    """Minimum of Σ ½ (x w − y)² / count + ½ PENALTY ‖w‖²; count defaults to the rows."""
    count = len(x) if count is None else count
    return np.linalg.solve(x.T @ x / count + PENALTY * np.eye(x.shape[1]), x.T @ y / count)


def logistic(dtype=np.float32) -> Convex:
    """Multinomial logistic regression, at its optimum. The order of P is that of w[D, C]."""
    x, _, y, train, queries = make_data()
    w = fit_logistic(x[train], y[train], np.full(len(x[train]), 1 / len(x[train])))
    gradients, hessians = logistic_derivatives(w, x, y)
    split = lambda part: {"x": x[part].astype(dtype), "y": y[part]}
    return Convex(
        logistic_loss,
        jnp.asarray(w, dtype),
        split(queries),
        split(train),
        gradients[queries],
        gradients[train],
        hessians[train].mean(0),
    )


def logistic_loss(w, batch):
    return optax.softmax_cross_entropy_with_integer_labels(batch["x"] @ w, batch["y"])


def logistic_derivatives(w, x, y):
    """Per-example gradients [N, P] and Hessians [N, P, P]."""
    logits = x @ w
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    slopes = p - np.eye(CLASSES)[y]
    gradients = np.einsum("nd,nc->ndc", x, slopes).reshape(len(x), -1)
    curvature = p[:, :, None] * np.eye(CLASSES) - p[:, :, None] * p[:, None, :]
    hessians = np.einsum("nd,ne,nij->ndiej", x, x, curvature)
    return gradients, hessians.reshape(len(x), w.size, w.size)


def fit_logistic(x, y, weights):
    """Minimum of Σ weights · ℓ + ½ PENALTY ‖w‖², by Newton to a gradient norm of 1e-12."""
    w = np.zeros((x.shape[1], CLASSES))
    for _ in range(50):
        gradients, hessians = logistic_derivatives(w, x, y)
        gradient = weights @ gradients + PENALTY * w.ravel()
        if np.linalg.norm(gradient) < 1e-12:
            return w
        hessian = np.einsum("n,npq->pq", weights, hessians) + PENALTY * np.eye(w.size)
        w = w - np.linalg.solve(hessian, gradient).reshape(w.shape)
    raise AssertionError("Newton did not converge")
