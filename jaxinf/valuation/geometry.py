"""The ground cost between two labelled sets, as an ott geometry that is read tile by tile.

    c(i, j) = λx · ‖x_i − y_j‖^p / p + λy · W[class of i, class of j]

Nothing n × m is held unless `cost_matrix` is asked for. ott's own streamed geometry
(`PointCloud(batch_size=...)`) has no label term, fails on JAX ≥ 0.9 (ott issue 700) and
gathers the rows of a sharded set on every device.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int
from ott.geometry.geometry import Geometry

from jaxinf.typing import PyTree
from jaxinf.valuation.distances import squared_distances


def tile_entries() -> int:
    """How many entries of the cost one tile holds: 16 MiB of float32 on a CPU, 256 elsewhere."""
    return 1 << (22 if jax.default_backend() == "cpu" else 26)


@jax.tree_util.register_pytree_node_class
class ClassWiseGeometry(Geometry):
    """Cost between labelled points, computed in tiles of rows.

    Any ott solver takes it: `apply_lse_kernel`, `apply_kernel` and `apply_cost` stream.

    Args:
        x: float[n, d], the training side.
        y: float[m, d], the validation side.
        x_labels: int[n], or float[n, C_x] shares of each class.
        y_labels: int[m], or float[m, C_y].
        label_distances: float[C_x, C_y], W above, in the units of the feature cost.
        feature_weight: λx.
        label_weight: λy.
        p: 1 or more. `p=2` is half the squared Euclidean distance.
        epsilon: the strength of the entropic term, in the units of the cost.
        tile_rows: rows per tile; chosen by memory when left out.

    Example:
        >>> geometry = ClassWiseGeometry(
        ...     jnp.array([[0.0], [2.0]]), jnp.array([[0.0]]), jnp.array([0, 1]), jnp.array([0]),
        ...     jnp.array([[0.0], [5.0]]), epsilon=1.0,
        ... )
        >>> geometry.cost_matrix.tolist()
        [[0.0], [7.0]]
    """

    def __init__(
        self,
        x: Float[jax.Array, "n d"],
        y: Float[jax.Array, "m d"],
        x_labels: Int[jax.Array, " n"] | Float[jax.Array, "n cx"],
        y_labels: Int[jax.Array, " m"] | Float[jax.Array, "m cy"],
        label_distances: Float[jax.Array, "cx cy"],
        *,
        feature_weight: float | jax.Array = 1.0,
        label_weight: float | jax.Array = 1.0,
        p: float = 2,
        epsilon: Any = 1.0,
        tile_rows: int | None = None,
    ):
        super().__init__(epsilon=epsilon)
        self.x, self.y = x, y
        self.x_labels, self.y_labels = x_labels, y_labels
        self.label_distances = label_distances
        self.feature_weight, self.label_weight = feature_weight, label_weight
        self.p = p
        self.tile_rows = tile_rows

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.x.shape[0], self.y.shape[0]

    @property
    def dtype(self) -> Any:
        """The dtype of the features."""
        return self.x.dtype

    @property
    def is_online(self) -> bool:
        """True: the cost is computed where it is used."""
        return True

    @property
    def cost_matrix(self) -> Float[jax.Array, "n m"]:
        """The whole cost, held in memory."""
        return self.tile_cost((self.x, self.x_labels))

    def tile_cost(self, rows: tuple[jax.Array, jax.Array]) -> Float[jax.Array, "t m"]:
        """Cost of some rows `(x, x_labels)` to every column."""
        x, labels = rows
        squared = squared_distances(x, self.y)
        if self.p == 2:
            distance = squared / 2
        else:
            # a root has no gradient at zero
            apart = squared > 0
            distance = jnp.where(apart, jnp.where(apart, squared, 1) ** (self.p / 2), 0) / self.p
        return self.feature_weight * distance + self.label_weight * self._label_cost(labels)

    def _label_cost(self, labels: jax.Array) -> Float[jax.Array, "t m"]:
        to_classes = labels @ self.label_distances if labels.ndim == 2 else None
        if to_classes is None:
            to_classes = self.label_distances[labels]
        if self.y_labels.ndim == 2:
            return to_classes @ self.y_labels.T
        return jnp.take(to_classes, self.y_labels, axis=1)

    def mean_under(self, a: Float[jax.Array, " n"], b: Float[jax.Array, " m"]) -> jax.Array:
        """Mean cost Σ a_i b_j c_ij of the independent coupling, float[]."""
        return a @ self.row_means(b)

    def row_means(self, b: Float[jax.Array, " m"]) -> Float[jax.Array, " n"]:
        """Mean cost Σ_j b_j c_ij of each row; with p = 2 from moments, reading no pair."""
        if self.p != 2:
            return self.apply_cost(b, axis=1)
        squares = jnp.sum(self.x**2, axis=1) + b @ jnp.sum(self.y**2, axis=1)
        distance = squares / 2 - self.x @ (b @ self.y)
        shares = (
            b @ self.y_labels
            if self.y_labels.ndim == 2
            else jnp.zeros(self.label_distances.shape[1], b.dtype).at[self.y_labels].add(b)
        )
        to_classes = self.label_distances @ shares
        soft = self.x_labels.ndim == 2
        between = self.x_labels @ to_classes if soft else to_classes[self.x_labels]
        return self.feature_weight * distance + self.label_weight * between

    def over_tiles(
        self,
        fn: Callable[..., tuple[PyTree, PyTree]],
        carry: PyTree,
        *rows: tuple[jax.Array, float],
    ) -> tuple[PyTree, PyTree]:
        """Fold over tiles of rows: `fn(carry, tile_cost, *row_arrays) -> (carry, per_row)`.

        Args:
            fn: gets the cost of a tile, float[t, m], and the tile of each row array.
            carry: what is folded.
            rows: pairs (array[n], value of the rows that pad the last tile).

        Returns:
            The last carry, and what `fn` gave per row, [n, ...].
        """
        n, m = self.shape
        size = min(n, self.tile_rows or max(8, tile_entries() // max(m, 1)))
        tiles = -(-n // size)
        if tiles == 1:
            cost = self.tile_cost((self.x, self.x_labels))
            return fn(carry, cost, *(array for array, _ in rows))

        def cut(array: jax.Array, fill: float = 0) -> jax.Array:
            widths = [(0, tiles * size - n)] + [(0, 0)] * (array.ndim - 1)
            padded = jnp.pad(array, widths, constant_values=fill)
            return padded.reshape(tiles, size, *array.shape[1:])

        def step(carry: PyTree, tile: tuple) -> tuple[PyTree, PyTree]:
            points, labels, *arrays = tile
            return fn(carry, self.tile_cost((points, labels)), *arrays)

        inputs = (cut(self.x), cut(self.x_labels), *(cut(array, fill) for array, fill in rows))
        # a gradient reads each tile again rather than keeping all of them
        carry, per_row = jax.lax.scan(jax.checkpoint(step), carry, inputs)
        return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], per_row)

    # what ott's solvers call

    def apply_lse_kernel(self, f, g, eps, vec=None, axis=0):  # noqa: D102
        if vec is not None:
            raise NotImplementedError("apply_lse_kernel with a vector: use apply_transport")
        if axis == 1:
            fold = lambda carry, cost: (carry, jax.nn.logsumexp((g[None, :] - cost) / eps, axis=1))
            _, lse = self.over_tiles(fold, None)
            return eps * lse, jnp.array([1.0])

        def running(carry, cost, of_rows):
            return jnp.logaddexp(carry, jax.nn.logsumexp((of_rows[:, None] - cost) / eps, 0)), None

        lse, _ = self.over_tiles(running, jnp.full(self.shape[1], -jnp.inf), (f, -jnp.inf))
        return eps * lse, jnp.array([1.0])

    def _apply_transport_from_potentials(self, f, g, vec, axis):
        plan = lambda cost, f: jnp.exp((f[:, None] + g[None, :] - cost) / self.epsilon)

        def one(vec):
            if axis == 1:
                fold = lambda carry, cost, f: (carry, plan(cost, f) @ vec)
                return self.over_tiles(fold, None, (f, -jnp.inf))[1]

            def running(carry, cost, f, vec):
                return carry + vec @ plan(cost, f), None

            zeros = jnp.zeros(self.shape[1], self.dtype)
            return self.over_tiles(running, zeros, (f, -jnp.inf), (vec, 0.0))[0]

        return jax.vmap(one)(vec)

    def apply_kernel(self, vec, eps=None, axis=0):  # noqa: D102
        eps = self.epsilon if eps is None else eps
        if axis == 1:
            return self.over_tiles(lambda c, cost: (c, jnp.exp(-cost / eps) @ vec), None)[1]
        running = lambda carry, cost, vec: (carry + vec @ jnp.exp(-cost / eps), None)
        return self.over_tiles(running, jnp.zeros(self.shape[1], self.dtype), (vec, 0.0))[0]

    def _apply_cost_to_vec(self, vec, axis=0, fn=None, is_linear=False):
        shaped = (lambda cost: cost) if fn is None else fn
        if axis == 1:
            return self.over_tiles(lambda c, cost: (c, shaped(cost) @ vec), None)[1]
        running = lambda carry, cost, vec: (carry + vec @ shaped(cost), None)
        return self.over_tiles(running, jnp.zeros(self.shape[1], self.dtype), (vec, 0.0))[0]

    def tree_flatten(self) -> Any:  # noqa: D102
        children = (
            self.x,
            self.y,
            self.x_labels,
            self.y_labels,
            self.label_distances,
            self.feature_weight,
            self.label_weight,
            self._epsilon_init,
        )
        return children, {"p": self.p, "tile_rows": self.tile_rows}

    @classmethod
    def tree_unflatten(cls, aux_data, children):  # noqa: D102
        *arrays, feature_weight, label_weight, epsilon = children
        return cls(
            *arrays,
            feature_weight=feature_weight,
            label_weight=label_weight,
            epsilon=epsilon,
            **aux_data,
        )
