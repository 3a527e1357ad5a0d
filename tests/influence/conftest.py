"""Fixtures over the problems of `problems`."""

import pytest
from problems import Problem, make_problem


@pytest.fixture(params=["mlp", "cnn", "transformer"])
def problem(request) -> Problem:
    """Each of the three networks in turn."""
    return make_problem(request.param)


@pytest.fixture
def mlp() -> Problem:
    """The cheapest of them."""
    return make_problem("mlp")
