"""Fused reductions against float64, in their portable and their GPU form."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jaxinf.valuation import kernel_blocks, kernel_gpu
from jaxinf.valuation.kernel import KernelGeometry, plan_sums, row_lse
from jaxinf.valuation.log_sums import both_log_sums, two_log_sums

ON_GPU = jax.default_backend() == "gpu"


def drawn(n=300, m=530, width=37, classes=5):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype("f")
    labels = rng.integers(classes, size=n), rng.integers(classes, size=m), draw(classes, classes)
    return draw(n, width), draw(m, width), draw(n), draw(m), tuple(map(jnp.asarray, labels))


def exact(x, y, labels):
    of_x, of_y, table = (np.asarray(each) for each in labels)
    return x.astype("f8") @ y.T.astype("f8") - table[of_x[:, None], of_y[None]].astype("f8")


@pytest.mark.parametrize("masked", [False, True])
def test_row_lse(masked):
    x, y, _, v, labels = drawn()
    if masked:
        v[::3] = -np.inf
    found = row_lse(x, y, v, labels)
    np.testing.assert_allclose(found, logsumexp(exact(x, y, labels) + v, axis=1), rtol=2e-6)


def test_plan_sums():
    x, y, u, v, labels = drawn()
    u[5], v[7] = -np.inf, -np.inf
    x, y = x / 4, y / 4
    plan = np.exp(u[:, None].astype("f8") + v + exact(x, y, labels))
    rows, columns = plan_sums(x, y, u, v, labels)
    np.testing.assert_allclose(rows, plan.sum(1), rtol=1e-5)
    np.testing.assert_allclose(columns, plan.sum(0), rtol=1e-5)
    assert rows[5] == 0
    assert columns[7] == 0


@pytest.mark.skipif(ON_GPU, reason="the GPU runs it for real, in the tests above")
def test_the_gpu_form_by_the_interpreter(monkeypatch):
    # the interpreter knows no such product
    monkeypatch.setattr(kernel_gpu, "_PRODUCTS", jax.lax.Precision.HIGHEST)
    x, y, u, v, labels = drawn(n=200, m=130)
    x, y = x / 4, y / 4
    logits = exact(x, y, labels)
    found = kernel_gpu.row_lse(x, y, v, labels, interpret=True)
    np.testing.assert_allclose(found, logsumexp(logits + v, axis=1), rtol=1e-5, atol=1e-5)
    plan = np.exp(u[:, None].astype("f8") + v + logits)
    rows, columns = kernel_gpu.plan_sums(x, y, u, v, labels, interpret=True)
    np.testing.assert_allclose(rows, plan.sum(1), rtol=1e-5)
    np.testing.assert_allclose(columns, plan.sum(0), rtol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_a_geometry_read_by_the_kernel(soft):
    x, y, u, v, (of_x, of_y, table) = drawn(n=40, m=30)
    if soft:
        of_x = jax.nn.one_hot(of_x, 5) * 0.9 + 0.02
    geometry = KernelGeometry(x, y, of_x, of_y, jnp.abs(table), feature_weight=0.5, label_weight=2)
    cost = np.asarray(geometry.cost_matrix, "f8") / 0.3
    wanted = logsumexp(v - cost, axis=1), logsumexp(u[:, None] - cost, axis=0)
    for read in (both_log_sums, two_log_sums):
        for found, expected in zip(read(geometry, u, v, jnp.float32(0.3)), wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["row_lse", "plan_sums"])
def test_it_compiles_for_a_tpu(name):
    """As far as that goes without one: lowered for it, to a program with a Mosaic kernel."""
    x, y, u, v, _ = drawn()
    given = (x, y, v) if name == "row_lse" else (x, y, u, v)
    run = functools.partial(getattr(kernel_blocks, name), interpret=False)
    exported = jax.export.export(jax.jit(run), platforms=["tpu"])(*given)
    assert "tpu_custom_call" in exported.mlir_module()


def test_blocks_do_not_show(monkeypatch):
    x, y, _, v, _ = drawn(n=50, m=260)
    whole = kernel_blocks.row_lse(x, y, v, interpret=True)
    monkeypatch.setattr(kernel_blocks, "ROWS", 16)
    monkeypatch.setattr(kernel_blocks, "COLUMNS", 128)
    np.testing.assert_allclose(kernel_blocks.row_lse(x, y, v, interpret=True), whole, rtol=1e-6)
