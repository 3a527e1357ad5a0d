"""`jaxinf doctor`: passes on a sound machine, and fails when an answer is wrong."""

import jax
import numpy as np

from jaxinf.cli import checkup
from jaxinf.influence import attribute as sound_attribute


def test_a_sound_machine_passes(call):
    result = call("doctor", "--no-progress")
    assert result.exit_code == 0, result.output
    assert f"{len(jax.devices())} × cpu" in result.stdout
    assert f"All {len(checkup.CHECKS)} checks passed." in result.stdout
    assert jax.__version__ in result.stdout


def test_wrong_numbers_fail_every_check_of_numbers(monkeypatch):
    """A machine whose sums are off by a part in a thousand, differently each time."""
    rng = np.random.default_rng(0)

    def unsound(*args, **options):
        found = sound_attribute(*args, **options)
        if found.scores is not None:
            found.scores[...] *= 1 + 1e-3 * rng.normal(size=found.scores.shape)
        return found

    monkeypatch.setattr(checkup, "attribute", unsound)
    outcomes = [checkup.run_check(check, jax.devices()[:2]) for check in checkup.CHECKS]
    failed = [
        check.title
        for check, outcome in zip(checkup.CHECKS, outcomes, strict=True)
        if not outcome.passed
    ]
    assert len(failed) >= 4
    assert all(outcome.measured is not None for outcome in outcomes)


def test_a_check_that_breaks_is_a_failure_with_its_reason_and_exit_code_1(call, monkeypatch):
    def broken(devices):
        raise RuntimeError("out of cheese")

    checks = (checkup.Check("broken", broken, 0.0), checkup.Check("sound", lambda devices: 0, 0.0))
    monkeypatch.setattr(checkup, "CHECKS", checks)
    result = call("doctor", "--no-progress")
    assert result.exit_code == 1
    assert "out of cheese" in result.stdout
    assert "1 of 2 checks failed." in result.stdout


def test_nan_does_not_pass():
    check = checkup.Check("nan", lambda devices: float("nan"), 1.0)
    assert not checkup.run_check(check, jax.devices()[:1]).passed
