"""ROC curves on logarithmic axes, where the rates that matter for membership can be read."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, require_extra
from jaxinf.report.figures import _BASELINES, _COLOURS, _canvas, _png


def roc_chart(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    lowest: float,
    baselines: Collection[str] = (),
) -> bytes:
    """True positive rate against false positive rate, both on logarithmic axes.

    Args:
        curves: label to `(fpr, tpr)`, both rising from 0 to 1, listed in this order.
        lowest: left end of both axes, such as one over the number of negatives: below it the
            curves are steps of single examples.
        baselines: labels drawn grey and dashed.

    Returns:
        The bytes of a PNG file.

    Raises:
        InputError: for no curve, a curve outside [0, 1] or of unequal lengths, or an end outside
            (0, 1).
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> roc_chart({"attack": ([0, 0.1, 1], [0, 0.5, 1])}, lowest=0.01)[1:4]
        b'PNG'
    """
    if not curves or not 0 < lowest < 1:
        raise InputError("a ROC chart needs a curve, and a lowest rate between 0 and 1")
    ticker = require_extra("matplotlib.ticker", "cli")
    figure, axes = _canvas()
    figure.set_size_inches(7.2, 4.8)
    axes.plot([lowest, 1], [lowest, 1], ":", color="#999999", linewidth=1.2, label="chance")
    colours, greys = iter(_COLOURS * (1 + len(curves))), iter(_BASELINES * (1 + len(curves)))
    for label, (fpr, tpr) in curves.items():
        x, y = np.asarray(fpr, np.float64), np.asarray(tpr, np.float64)
        inside = x.shape == y.shape and x.ndim == 1 and ((x >= 0) & (x <= 1)).all()
        if not inside or not ((y >= 0) & (y <= 1)).all():
            raise InputError(f"curve {label!r} is no ROC curve: two arrays of rates are needed")
        colour = next(greys if label in baselines else colours)
        # what lies below the axes' end is drawn on it, so that a curve does not begin in mid-air
        x, y = np.maximum(x, lowest), np.maximum(y, lowest)
        style = "--" if label in baselines else "-"
        axes.plot(x, y, style, color=colour, linewidth=1.8, label=label, drawstyle="steps-post")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(lowest, 1),
        ylim=(lowest, 1.05),
        xlabel="false positive rate",
        ylabel="true positive rate",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ticker.FuncFormatter(lambda rate, _: f"{100 * rate:g} %"))
    axes.grid(axis="both", color="#eeeeee")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)
