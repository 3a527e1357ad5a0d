"""What the released LAVA code computes, through geomloss itself: the fixture of the tests.

    pip install geomloss==0.2.6 torch
    python -m benchmarks.geomloss_reference [OUTPUT.npz]

geomloss is called as the released code calls it (label distances, then the outer problem with the
label table in its cost), on a small two-class set that is drawn here from a seed.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

FIXTURE = Path(__file__).resolve().parents[1] / "tests" / "valuation" / "geomloss_reference.npz"
EPSILON = 0.1


def small_sets(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and validation features and labels: three classes, a tenth of the labels wrong."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, 6)) * 4
    y, yv = np.sort(rng.integers(3, size=90)), np.sort(rng.integers(3, size=70))
    x = (centres[y] + rng.normal(size=(90, 6))).astype(np.float32)
    xv = (centres[yv] + rng.normal(size=(70, 6))).astype(np.float32)
    wrong = rng.choice(90, 9, replace=False)
    y[wrong] = (y[wrong] + 1) % 3
    return x, y.astype(np.int32), xv, yv.astype(np.int32)


def class_costs(sides: list[tuple[Any, Any]]) -> Any:
    """Geomloss's cost of every class of the first side to every class of the second."""
    import torch
    from geomloss import SamplesLoss

    loss = SamplesLoss("sinkhorn", p=2, blur=EPSILON**0.5, debias=False, backend="tensorized")
    (x, y), (xv, yv) = sides
    rows = []
    for c in torch.unique(y):
        rows.append(torch.stack([loss(x[y == c], xv[yv == d]) for d in torch.unique(yv)]))
    return torch.stack(rows)


def outer_potentials(x: Any, y: Any, xv: Any, yv: Any, table: Any) -> tuple[Any, Any]:
    """The outer problem: features and labels in one array, the label table in the cost."""
    import torch
    from geomloss import SamplesLoss

    # geomloss asks for the cost both ways round: validation classes are numbered after the
    # training classes, and the table is square and symmetric
    classes = len(table)
    both = torch.zeros(sum(table.shape), sum(table.shape))
    both[:classes, classes:], both[classes:, :classes] = table, table.T

    def cost(left: Any, right: Any) -> Any:
        apart = torch.cdist(left[..., :-1], right[..., :-1]) ** 2 / 2
        # batches of one: geomloss hands arrays [1, n, d + 1]
        rows, columns = left[0, :, -1].long(), right[0, :, -1].long()
        return apart + both[rows][:, columns][None] / 2

    loss = SamplesLoss(
        "sinkhorn",
        p=2,
        cost=cost,
        blur=EPSILON**0.5,
        debias=False,
        backend="tensorized",
        potentials=True,
    )
    with_label = lambda points, labels: torch.cat([points, labels[:, None].float()], dim=1)
    f, g = loss(with_label(x, y), with_label(xv, yv + classes))
    return f.ravel(), g.ravel()


def reference(x: np.ndarray, y: np.ndarray, xv: np.ndarray, yv: np.ndarray) -> dict[str, Any]:
    """Potentials and label costs of the released recipe, as numpy arrays."""
    import torch

    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in (x, y, xv, yv)]
    x, y, xv, yv = tensors[0], tensors[1].long(), tensors[2], tensors[3].long()
    table = class_costs([(x, y), (xv, yv)])
    f, g = outer_potentials(x, y, xv, yv, table)
    return {"table": table.numpy(), "f": f.numpy(), "g": g.numpy()}


def main() -> None:
    """Write the fixture."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURE
    x, y, xv, yv = small_sets()
    np.savez_compressed(path, x=x, y=y, xv=xv, yv=yv, **reference(x, y, xv, yv))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
