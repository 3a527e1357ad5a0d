"""A matrix as a picture."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, require_extra

_INK = "#333333"
# beyond, names and numbers would not be read
_NAMED, _WRITTEN = 40, 12


def heat_map(
    matrix: ArrayLike,
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    ylabel: str,
    xlabel: str,
    value_label: str,
) -> bytes:
    """A matrix in shades from light (small) to dark (large), with its numbers where they fit.

    Args:
        matrix: float[R, C].
        row_names: R of them.
        column_names: C of them.
        ylabel: what the rows are.
        xlabel: what the columns are.
        value_label: what the numbers are.

    Returns:
        The bytes of a PNG file.

    Raises:
        InputError: for a matrix that is none, names that do not fit it, or NaN or infinities.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> heat_map(np.eye(2), "ab", "cd", ylabel="rows", xlabel="columns", value_label="n")[1:4]
        b'PNG'
    """
    values = np.asarray(matrix, np.float64)
    if values.shape != (len(row_names), len(column_names)) or not values.size:
        raise InputError(
            f"a matrix of shape {values.shape} with {len(row_names)} and {len(column_names)} names "
            "cannot be drawn"
        )
    if not np.isfinite(values).all():
        raise InputError("the matrix holds NaN or infinite numbers")
    rows, columns = values.shape
    height = min(8.4, max(2.8, 1.6 + 0.5 * rows))
    # no pyplot: it keeps figures in a global list and may open a window system
    figure = require_extra("matplotlib.figure", "cli").Figure(
        figsize=(8.4, height), dpi=150, layout="constrained"
    )
    axes = figure.subplots()
    shown = axes.imshow(values, cmap="Blues", aspect="auto")
    for axis, names in ((axes.xaxis, column_names), (axes.yaxis, row_names)):
        if len(names) <= _NAMED:
            axis.set_ticks(range(len(names)), [str(name)[:16] for name in names], fontsize=8)
    if max(len(str(name)) for name in column_names) > 4 and columns <= _NAMED:
        axes.tick_params(axis="x", rotation=60)
    if max(rows, columns) <= _WRITTEN:
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            colour = "white" if value > middle else _INK
            axes.text(
                column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color=colour
            )
    axes.set_xlabel(xlabel, color=_INK)
    axes.set_ylabel(ylabel, color=_INK)
    figure.colorbar(shown, ax=axes, label=value_label)
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    return file.getvalue()
