import itertools

import numpy as np
import pytest

from jaxinf.errors import InputError
from jaxinf.valuation.selection import select

RNG = np.random.default_rng(0)


def test_the_best_rows_come_first_and_ties_by_row():
    values = np.array([1.0, 5.0, 3.0, 5.0])
    assert select(values, budget=4).tolist() == [1, 3, 2, 0]
    assert select(values, budget=2).tolist() == [1, 3]


def test_classes_take_turns():
    values, labels = RNG.normal(size=60), RNG.integers(0, 3, 60)
    kept = select(values, budget=30, labels=labels)
    assert (np.bincount(labels[kept]) == 10).all()
    for label in range(3):
        own = np.flatnonzero(labels == label)
        best = own[np.argsort(-values[own])][:10]
        assert set(best) == set(kept[labels[kept] == label])


def test_a_class_that_runs_out_leaves_its_share_to_the_others():
    values, labels = RNG.normal(size=40), np.repeat(["few", "many", "more"], [4, 18, 18])
    kept = labels[select(values, budget=24, labels=labels)]
    assert {name: int((kept == name).sum()) for name in ("few", "many", "more")} == {
        "few": 4,
        "many": 10,
        "more": 10,
    }


def test_bought_rows_fit_the_budget_and_are_within_one_row_of_the_optimum():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values, cost = rng.normal(size=10), rng.uniform(0.5, 2, 10)
        kept = select(values, budget=5, cost=cost)
        assert cost[kept].sum() <= 5
        assert (values[kept] > 0).all()
        assert len(set(kept)) == len(kept)
        best = max(
            values[list(rows)].sum()
            for size in range(11)
            for rows in itertools.combinations(range(10), size)
            if cost[list(rows)].sum() <= 5
        )
        assert best - values.max() <= values[kept].sum() <= best + 1e-12


def test_what_no_longer_fits_is_passed_over_for_what_does():
    values, cost = [4.0, 3.0, 2.0, 1.0], [4.0, 4.0, 3.5, 2.0]
    assert select(values, budget=6.0, cost=cost).tolist() == [0, 3]
    assert select(values, budget=7.5, cost=cost).tolist() == [0, 2]


def test_nothing_affordable_or_worthwhile_is_an_empty_selection():
    assert select([1.0, 2.0], budget=1, cost=[5.0, 6.0]).tolist() == []
    assert select([-1.0, 0.0], budget=9, cost=[1.0, 1.0], labels=[0, 1]).tolist() == []


def test_classes_take_turns_in_buying_too():
    values, labels = [9.0, 8.0, 7.0, 1.0], ["a", "a", "a", "b"]
    assert select(values, budget=3, cost=np.ones(4), labels=labels).tolist() == [0, 3, 1]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1.0, 2.0], {"budget": 3}, "budget is 3: give 1 to 2"),
        ([1.0, 2.0], {"budget": 1.5}, "budget is 1.5"),
        ([1.0, 2.0], {"budget": 0}, "budget is 0"),
        ([1.0, 2.0], {"budget": -1, "cost": [1, 1]}, "budget is -1: give a positive amount"),
        ([1.0, 2.0], {"budget": 1, "cost": [1, 0]}, "cost must be positive"),
        ([1.0, 2.0], {"budget": 1, "cost": [1]}, r"cost has shape \(1,\)"),
        ([1.0, 2.0], {"budget": 1, "labels": ["a"]}, r"labels have shape \(1,\)"),
        ([1.0, np.nan], {"budget": 1}, "first in example 1"),
        ([], {"budget": 1}, r"values have shape \(0,\)"),
        (["a"], {"budget": 1}, "one number per example"),
    ],
)
def test_bad_input(values, options, message):
    with pytest.raises(InputError, match=message):
        select(values, **options)
