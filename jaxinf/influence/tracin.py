"""TracIn: gradient dot products, summed over the checkpoints of the run that trained the model."""

from collections.abc import Sequence
from typing import Any

from jaxinf.influence.attributor import Attributor
from jaxinf.influence.derivatives import Scorer
from jaxinf.influence.ensemble import over_checkpoints
from jaxinf.influence.gradients import grad_dot
from jaxinf.typing import PerExampleLoss


def tracin(
    loss_fn: PerExampleLoss,
    learning_rates: Sequence[float],
    *,
    scorer: Scorer = "auto",
    query_chunk: int | None = 4,
    gradient_chunk: int | None = None,
    compute_dtype: Any = None,
) -> Attributor:
    """TracInCP: `Σ_c η_c ⟨∇ℓ(q; θ_c), ∇ℓ(z; θ_c)⟩` over C checkpoints.

    Sign: positive = training on the example lowers the query's loss (a proponent). Unit: of the
    loss; the sum of what one SGD step of rate η_c on z at each checkpoint would gain.

    Cost: C times that of `grad_dot`.

    Args:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        learning_rates: η_c, one per checkpoint (times the steps it stands for, if not alike).
        scorer: as in `grad_dot`.
        query_chunk: as in `grad_dot`.
        gradient_chunk: as in `grad_dot`.
        compute_dtype: as in `grad_dot`.

    Returns:
        An `Attributor` whose params have a leading axis C, as from `stack_checkpoints`. Its
        diagnostics are those of `grad_dot`, averaged over the checkpoints.

    Raises:
        InputError: no learning rates; in `prepare`, params that are not stacked over C
            checkpoints.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxinf.influence.ensemble import stack_checkpoints
        >>> loss = lambda w, batch: (batch["x"] @ w - batch["y"]) ** 2
        >>> batch = {"x": jnp.array([[1.0, 0.0], [1.0, 1.0]]), "y": jnp.array([1.0, -1.0])}
        >>> method = tracin(loss, [0.1, 0.2])
        >>> models = stack_checkpoints([jnp.zeros(2), jnp.array([1.0, 0.0])])
        >>> scores = method.score(method.prepare(models, batch), batch)
        >>> [[round(float(score), 3) for score in row] for row in scores]
        [[0.4, -0.4], [-0.4, 7.2]]

    Reference: Pruthi et al., Estimating Training Data Influence by Tracing Gradient Descent,
    NeurIPS 2020, section 3.2.
    """
    at_one = grad_dot(
        loss_fn,
        scorer=scorer,
        query_chunk=query_chunk,
        gradient_chunk=gradient_chunk,
        compute_dtype=compute_dtype,
    )
    name = f"tracin({at_one.name}, {[float(rate) for rate in learning_rates]})"
    return over_checkpoints(at_one, learning_rates)._replace(name=name)
