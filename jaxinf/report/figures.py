"""Pictures: pure functions from arrays to the bytes of a PNG file, through matplotlib's Agg."""

import io
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxinf.errors import InputError, require_extra

# Okabe and Ito's colours, which colour-blind readers can tell apart
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5a3fa0")
_BASELINES = ("#222222", "#777777", "#aaaaaa")
_INK = "#333333"
# pixels that were standardised and turned back miss [0, 1] by a little
_ROUNDING = 1e-3


def image_png(pixels: ArrayLike) -> bytes:
    """One picture as PNG, at its own size.

    Args:
        pixels: [H, W] or [H, W, c] with 1, 3 or 4 channels: uint8 as stored; floating point in
            [0, 1] as it is, and with any other range (standardised pixels, say) stretched from
            its smallest to its largest value.

    Returns:
        The file's bytes.

    Raises:
        InputError: for another shape, or NaN or infinite pixels.
        MissingExtraError: Pillow is not installed.

    Example:
        >>> image_png(np.eye(4))[1:4]
        b'PNG'
    """
    image = require_extra("PIL.Image", "cli")
    array = np.asarray(pixels)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not array.size or not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))):
        raise InputError(
            f"a picture of shape {array.shape} cannot be shown: [H, W] or [H, W, c] with 1, 3 or "
            "4 channels is needed"
        )
    if array.dtype != np.uint8:
        values = array.astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError("a picture holds NaN or infinite pixels")
        low, high = float(values.min()), float(values.max())
        if low > -_ROUNDING and high < 1 + _ROUNDING:
            low, high = 0.0, 1.0
        values = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
        array = np.rint(255 * values).astype(np.uint8)
    file = io.BytesIO()
    image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def line_chart(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    baselines: Collection[str] = (),
    chance: tuple[ArrayLike, ArrayLike] | None = None,
    percent: bool = False,
    log_x: bool = False,
) -> bytes:
    """Curves of shares between 0 and 1, such as detection curves.

    Args:
        lines: label to `(x, y)`, drawn and listed in this order.
        xlabel: what the horizontal axis is.
        ylabel: what the vertical axis is, a share.
        baselines: labels drawn grey and dashed.
        chance: the curve of a random order, dotted.
        percent: whether x is a share too.
        log_x: whether x is on a logarithmic scale.

    Returns:
        The bytes of a PNG file.

    Example:
        >>> line_chart({"a": ([0, 1], [0, 1])}, xlabel="inspected", ylabel="found")[1:4]
        b'PNG'
    """
    ticker = require_extra("matplotlib.ticker", "cli")
    figure, axes = _canvas()
    if chance is not None:
        axes.plot(*chance, ":", color="#999999", linewidth=1.2, label="random order")
    colours, greys = iter(_COLOURS * (1 + len(lines))), iter(_BASELINES * (1 + len(lines)))
    for label, (x, y) in lines.items():
        style: dict[str, Any] = (
            {"color": next(greys), "linestyle": "--", "linewidth": 1.6}
            if label in baselines
            else {"color": next(colours), "linewidth": 2.0}
        )
        axes.plot(x, y, label=label, **style)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(-0.02, 1.03))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f"{x:,.0f}"))
    if percent:
        axes.xaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(figure)


def histogram(
    groups: Mapping[str, ArrayLike], *, xlabel: str, ylabel: str = "share of each group"
) -> bytes:
    """Distributions of one number in several groups, over common bins, each summing to 1.

    Args:
        groups: label to numbers [n].
        xlabel: what the number is.
        ylabel: what the vertical axis is.

    Returns:
        The bytes of a PNG file.

    Raises:
        InputError: for an empty group, or NaN or infinite numbers.

    Example:
        >>> histogram({"right": [0.0, 0.1], "wrong": [0.9]}, xlabel="score")[1:4]
        b'PNG'
    """
    arrays = {label: np.asarray(values, np.float64).ravel() for label, values in groups.items()}
    for label, values in arrays.items():
        if not values.size or not np.isfinite(values).all():
            raise InputError(f"group {label!r} is empty or holds NaN or infinite numbers")
    ticker = require_extra("matplotlib.ticker", "cli")
    figure, axes = _canvas()
    every = np.concatenate(list(arrays.values()))
    # the outermost hundredth would squeeze everything else into one bin; it goes to the last ones
    edges = np.histogram_bin_edges(every, bins=40, range=tuple(np.quantile(every, [0.01, 0.99])))
    for (label, values), colour in zip(arrays.items(), _COLOURS * len(arrays), strict=False):
        shares = np.full(values.shape, 1 / len(values))
        inside = np.clip(values, edges[0], edges[-1])
        axes.hist(inside, edges, weights=shares, alpha=0.6, label=label, color=colour)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False, fontsize=9)
    return _png(figure)


def _canvas() -> tuple[Any, Any]:
    # no pyplot: it keeps figures in a global list and may open a window system
    figure = require_extra("matplotlib.figure", "cli").Figure(
        figsize=(8.4, 3.7), dpi=150, layout="constrained"
    )
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.tick_params(colors=_INK, labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    return file.getvalue()
