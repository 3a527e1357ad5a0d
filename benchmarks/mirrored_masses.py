"""The mirror at other masses of the query; used by `benchmarks.mirrored_hypothesis`.

Training with the query counted m times moves an example's loss by m times the influence, and by an
error that grows with m². Half the difference of +m and −m is without it: the symmetric mirror.
"""

from typing import Any

import numpy as np

from jaxinf.evaluation.loo import loo_correlation
from jaxinf.influence.ground_truth import mirrored_leave_one_out


def by_mass(
    given: Any, truth: np.ndarray, sample: np.ndarray, mass: float, **options: Any
) -> list[dict[str, Any]]:
    """One row per form of the mirror: the query added, taken away, and half their difference.

    Args:
        given: loss, minimum, queries and training set.
        truth: leave-one-out influences float[K, R] of the rows in `sample`.
        sample: int[R].
        mass: how many examples the query counts for.
        **options: of `mirrored_leave_one_out`.

    Returns:
        Rows with the correlations of each query.
    """
    added, taken = (
        mirrored_leave_one_out(*given, query_mass=signed, **options) for signed in (mass, -mass)
    )
    forms = {
        "added": added.influences,
        "taken": -taken.influences,
        "symmetric": (added.influences - taken.influences) / 2,
    }
    norm = float(max(added.gradient_norms.max(), taken.gradient_norms.max()))
    rows = []
    for form, influences in forms.items():
        found = loo_correlation(influences[:, sample], truth)
        row = {"mass": mass, "form": form, "largest_gradient_norm": norm}
        rows.append(row | {"pearson": found.pearson.tolist(), "spearman": found.spearman.tolist()})
    return rows
