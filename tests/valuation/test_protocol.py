"""One protocol for all methods: the same two sets first, options by keyword, values back."""

import inspect
import typing

import pytest

from jaxinf import valuation

METHODS = (
    "lava",
    "sava",
    "nearest_validation",
    "mmd_values",
    "knn_shapley",
    "data_oob",
    "data_shapley",
    "beta_shapley",
    "data_banzhaf",
    "loo_values",
)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_two_sets_and_gives_values(name):
    method = getattr(valuation, name)
    parameters = list(inspect.signature(method).parameters.values())
    sets, options = parameters[:4], parameters[4:]
    wanted = list(inspect.signature(valuation.Valuator.__call__).parameters)[1:]
    assert [parameter.name for parameter in sets] == wanted
    assert all(p.kind is p.POSITIONAL_ONLY for p in sets)
    assert all(p.kind is p.KEYWORD_ONLY for p in options)
    found = typing.get_type_hints(method)["return"]
    assert "values" in found._fields
    assert "higher" in method.__doc__
    assert "Raises:" in method.__doc__
