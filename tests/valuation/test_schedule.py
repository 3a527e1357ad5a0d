"""The released schedule against geomloss: a stored fixture, and live where it is installed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jaxinf.valuation import calibrated_gradients, lava
from jaxinf.valuation.schedule import epsilon_schedule

FIXTURE = Path(__file__).parent / "geomloss_reference.npz"


def agrees(found, reference):
    scale = np.std(reference["f"])
    np.testing.assert_allclose(found.label_distances, reference["table"], rtol=1e-3)
    np.testing.assert_allclose(found.f, reference["f"], atol=1e-2 * scale)
    np.testing.assert_allclose(found.g, reference["g"], atol=1e-2 * np.std(reference["g"]))
    # closer than what was asked for: the two are one algorithm in float32
    assert np.median(np.abs(found.f - reference["f"])) < 1e-3 * scale


@pytest.mark.parametrize("route", ["materialised", "streamed"])
def test_reference_schedule_is_geomloss_s(route):
    stored = np.load(FIXTURE)
    found = lava(
        stored["x"],
        stored["y"],
        stored["xv"],
        stored["yv"],
        solver="reference",
        label_cost="reference",
        route=route,
        num_checks=0,
    )
    agrees(found, stored)
    np.testing.assert_allclose(
        found.calibrated_gradients, calibrated_gradients(stored["f"]), atol=1e-2 * stored["f"].std()
    )


@pytest.mark.filterwarnings("ignore")
def test_reference_schedule_is_geomloss_s_live():
    pytest.importorskip("torch")
    pytest.importorskip("geomloss")
    from benchmarks.geomloss_reference import reference, small_sets

    sets = small_sets(seed=5)
    found = lava(*sets, solver="reference", label_cost="reference", num_checks=0)
    agrees(found, reference(*sets))


def test_schedule_descends_to_its_target():
    count, at = epsilon_schedule(20.0, 0.1)
    schedule = [float(at(i)) for i in range(int(count))]
    assert schedule[0] == schedule[1] == 400.0
    assert schedule[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(schedule))
    np.testing.assert_allclose(np.divide(schedule[2:-1], schedule[1:-2]), 0.25)
