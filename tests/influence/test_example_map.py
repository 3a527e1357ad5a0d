import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinf.influence import example_map
from jaxinf.influence.example_map import map_examples

ROWS = 23


def per_example(example):
    return {"sum": example["x"].sum(), "both": example["x"] * example["y"]}


def batch():
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float32)
    return {"x": x, "y": np.arange(ROWS)}


@pytest.mark.parametrize("unrolled", [16, 0], ids=["chunks in the program", "a loop"])
@pytest.mark.parametrize("chunk", [1, 2, 5, 22, 23, 40])
def test_every_way_gives_every_example_its_own(monkeypatch, chunk, unrolled):
    monkeypatch.setattr(example_map, "_UNROLLED", unrolled)
    rows = batch()
    rows["x"][3], rows["x"][7] = np.nan, np.inf  # of their rows alone
    found = jax.jit(lambda rows: map_examples(per_example, rows, chunk))(rows)
    np.testing.assert_allclose(found["sum"], rows["x"].sum(1), rtol=1e-5)
    np.testing.assert_array_equal(found["both"], rows["x"] * rows["y"].astype("f4")[:, None])


def test_it_can_be_differentiated_and_mapped():
    total = lambda scale, rows, chunk: jnp.sum(
        map_examples(lambda row: jnp.sin(scale * row["x"]).sum(), rows, chunk)
    )
    scales = jnp.array([0.5, 2.0])
    run = lambda chunk: jax.vmap(jax.grad(total), (0, None, None))(scales, batch(), chunk)
    np.testing.assert_allclose(run(6), run(ROWS), rtol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere chunks are a loop")
def test_chunks_on_a_cpu_are_no_loop_and_do_not_add_up_in_memory():
    kernel = jnp.ones((3, 3, 4, 64))

    def size(row):
        def response(kernel):
            layout = ("NHWC", "HWIO", "NHWC")
            conv = jax.lax.conv_general_dilated
            found = conv(row["x"][None], kernel, (1, 1), "SAME", dimension_numbers=layout)
            return jax.nn.relu(found).sum()

        return jnp.vdot(*[jax.grad(response)(kernel)] * 2)

    rows = {"x": jnp.ones((16, 16, 16, 4))}
    of = lambda chunk: jax.jit(lambda rows: map_examples(size, rows, chunk)).lower(rows).compile()
    at_once, chunks = of(16), of(2)
    memory = [made.memory_analysis().temp_size_in_bytes for made in (at_once, chunks)]
    assert memory[1] < memory[0] / 4
    assert " while(" not in chunks.as_text()
    np.testing.assert_allclose(chunks(rows), at_once(rows), rtol=1e-5)
