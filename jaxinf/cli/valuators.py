"""Valuation methods by name, and what all of them leave behind."""

import importlib
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jaxinf.cli.features import Sets
from jaxinf.cli.value_choices import Valuer
from jaxinf.errors import InputError

# module and function of jaxinf.valuation behind each name
_FUNCTIONS = {
    Valuer.LAVA: ("lava", "lava"),
    Valuer.NEAREST: ("nearest", "nearest_validation"),
    Valuer.SAVA: ("hierarchical", "sava"),
    Valuer.MMD: ("mmd", "mmd_values"),
    Valuer.KNN_SHAPLEY: ("knn_shapley", "knn_shapley"),
    Valuer.DATA_OOB: ("data_oob", "data_oob"),
    Valuer.DATA_SHAPLEY: ("shapley", "data_shapley"),
    Valuer.BETA_SHAPLEY: ("shapley", "beta_shapley"),
    Valuer.BANZHAF: ("banzhaf", "data_banzhaf"),
    Valuer.LEAVE_ONE_OUT: ("semivalues", "loo_values"),
}
# what results hold per row beside the values, and single numbers that are no fields
_PER_ROW = ("calibrated_gradients", "standard_errors")
_PROPERTIES = ("reliability",)


@dataclass(frozen=True)
class Valued:
    """What a method found.

    Attributes:
        method: its name.
        values: float64[N], higher = more worth having.
        columns: further numbers per row, float64[N] each: `calibrated_gradient` (LAVA's own sign:
            higher = worse) and `standard_error` (of methods that sample), where there are any.
        figures: numbers about the whole, by name.
        label_distances: float[C_train, C_valid] with the labels of its rows and columns, if any.
        converged: whether an iterative method solved what was posed; None for the others.
        soft: whether the method stops early by design, so that it never solves what was posed.
        warnings: what the method warned of, such as a class that one side lacks.
    """

    method: str
    values: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    label_distances: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    converged: bool | None = None
    soft: bool = False
    warnings: tuple[str, ...] = ()


def run_valuator(
    method: Valuer, sets: Sets, options: Mapping[str, Any], *, seed: int = 0
) -> Valued:
    """Value a training set by a method's name.

    Args:
        method: which.
        sets: features and labels of both sides.
        options: keywords of the method that the user chose.
        seed: for the methods that draw.

    Raises:
        InputError: an option that the method does not have, or sets that it refuses.
    """
    import jax

    from jaxinf.valuation import ValuationWarning

    function = find_function(method)
    known = inspect.signature(function).parameters
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"{method.value} has no {unknown[0].replace('_', ' ')}: leave it out")
    draws = {"key": jax.random.key(seed)} if "key" in known else {"seed": seed}
    chosen = {name: value for name, value in draws.items() if name in known} | dict(options)
    with warnings.catch_warnings(record=True) as caught:
        # shown in one line each, and in the report
        warnings.simplefilter("always", ValuationWarning)
        found = function(
            sets.train_features, sets.train_labels, sets.valid_features, sets.valid_labels, **chosen
        )
    said = [warning for warning in caught if issubclass(warning.category, ValuationWarning)]
    return replace(
        summarise(method.value, found),
        warnings=tuple(dict.fromkeys(_by_name(str(w.message), sets.names) for w in said)),
    )


def find_function(method: Valuer) -> Any:
    """The function of `jaxinf.valuation` behind a name."""
    module, name = _FUNCTIONS[method]
    return getattr(importlib.import_module(f"jaxinf.valuation.{module}"), name)


def summarise(method: str, found: Any) -> Valued:
    """Take from any method's result what files and report show.

    Raises:
        InputError: values that are not finite, so that nothing can be ranked by them.
    """
    values = np.asarray(found.values, np.float64)
    if not np.isfinite(values).all():
        raise InputError(
            f"{method} gave {int((~np.isfinite(values)).sum())} values that are NaN or infinite: "
            "the features may be too large for the method's settings (try --embedding standardise, "
            "or a larger --epsilon)"
        )
    rows = {name.removesuffix("s"): getattr(found, name, None) for name in _PER_ROW}
    converged = getattr(found, "converged", None)
    distances = getattr(found, "label_distances", None)
    if distances is not None:
        parts = (distances, found.train_classes, found.valid_classes)
        distances = tuple(np.asarray(part) for part in parts)
    return Valued(
        method=method,
        values=values,
        columns={name: np.asarray(a, np.float64) for name, a in rows.items() if a is not None},
        figures=_figures(found),
        label_distances=distances,  # pyright: ignore[reportArgumentType]
        converged=None if converged is None else bool(converged),
        soft=getattr(found, "solver", "") in ("annealed", "reference"),
    )


def _by_name(message: str, names: Mapping[int, str]) -> str:
    """A message that speaks of class numbers, with what these stand for."""
    if all(name == str(number) for number, name in names.items()):
        return message
    listed = ", ".join(f"{number} is {name}" for number, name in list(names.items())[:20])
    return f"{message} ({listed}{', ...' if len(names) > 20 else ''})"


def _figures(found: Any) -> dict[str, float]:
    """Single numbers in a result, and those of its certificate."""
    fields = dict(found._asdict() if hasattr(found, "_asdict") else vars(found))
    fields |= {name: getattr(found, name) for name in _PROPERTIES if hasattr(found, name)}
    figures: dict[str, float] = {}
    for name, value in fields.items():
        if name == "certificate" and value is not None:
            figures |= _figures(value)
        elif np.shape(number := np.asarray(value)) == () and number.dtype.kind in "fiu":
            figures[name] = float(number)
    return figures
