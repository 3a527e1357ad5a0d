"""The models and sizes that `benchmarks.forward_inf` times; knows neither jax nor torch."""

from dataclasses import dataclass
from typing import Any

CLASSES = 10
VOCABULARY = 256


@dataclass(frozen=True)
class Workload:
    """One model with its data.

    Attributes:
        name: as given to `--models`.
        model: which class both frameworks build.
        sizes: constructor arguments of the flax model (both twins understand them).
        batch_size: training examples per step over all devices.
        example_shape: of one input; tokens where `tokens` is true.
        learning_rate: of the step on the query.
        num_rows: K -> training examples scored.
        extra_queries: the K for which first-order methods are timed beside it.
        extra_rows: training examples that those score.
        tokens: inputs are integers, and the loss is of the next one.
    """

    name: str
    model: str
    sizes: dict[str, Any]
    batch_size: int
    example_shape: tuple[int, ...]
    learning_rate: float
    num_rows: dict[int, int]
    extra_queries: tuple[int, ...]
    extra_rows: int
    tokens: bool = False

    def rows(self, queries: int) -> int:
        """How many training examples are scored against that many queries."""
        if queries in self.num_rows:
            return self.num_rows[queries]
        nearest = min(self.num_rows, key=lambda k: abs(k - queries))
        return self.num_rows[nearest]


_GPT = {"vocab_size": VOCABULARY, "num_layers": 6, "width": 256, "num_heads": 8, "max_length": 128}

# Enough examples that a repetition takes seconds, few enough that all of it takes minutes.
FULL = (
    Workload(
        name="mlp",
        model="MLP",
        sizes={"hidden": (1024, 1024)},
        batch_size=1024,
        example_shape=(784,),
        learning_rate=0.1,
        num_rows={1: 16 * 1024, 8: 8 * 1024, 64: 2 * 1024},
        extra_queries=(1, 8, 64),
        extra_rows=1024,
    ),
    Workload(
        name="cnn",
        model="SmallCNN",
        sizes={},
        batch_size=256,
        example_shape=(28, 28, 1),
        learning_rate=0.05,
        num_rows={1: 2048, 8: 512, 64: 256},
        extra_queries=(1, 8),
        extra_rows=128,
    ),
    Workload(
        name="resnet18",
        model="ResNet18",
        sizes={},
        batch_size=128,
        example_shape=(32, 32, 3),
        learning_rate=0.01,
        num_rows={1: 256, 8: 128, 64: 64},
        extra_queries=(1, 8),
        extra_rows=32,
    ),
    Workload(
        name="transformer",
        model="Transformer",
        sizes=_GPT,
        batch_size=16,
        example_shape=(128,),
        learning_rate=0.1,
        num_rows={1: 128, 8: 32, 64: 16},
        extra_queries=(1, 8, 64),
        extra_rows=16,
        tokens=True,
    ),
)

# The same code at sizes that take seconds: shows that it works, not how fast.
QUICK = (
    Workload(
        name="mlp",
        model="MLP",
        sizes={"hidden": (64, 64)},
        batch_size=64,
        example_shape=(784,),
        learning_rate=0.1,
        num_rows={1: 256, 2: 128},
        extra_queries=(1, 2),
        extra_rows=64,
    ),
    Workload(
        name="cnn",
        model="SmallCNN",
        sizes={},
        batch_size=8,
        example_shape=(28, 28, 1),
        learning_rate=0.05,
        num_rows={1: 16, 2: 16},
        extra_queries=(1,),
        extra_rows=8,
    ),
    Workload(
        name="resnet18",
        model="ResNet18",
        sizes={"width": 8},
        batch_size=8,
        example_shape=(32, 32, 3),
        learning_rate=0.01,
        num_rows={1: 16, 2: 16},
        extra_queries=(1,),
        extra_rows=8,
    ),
    Workload(
        name="transformer",
        model="Transformer",
        sizes=_GPT | {"num_layers": 2, "width": 64, "num_heads": 2, "max_length": 32},
        batch_size=4,
        example_shape=(32,),
        learning_rate=0.1,
        num_rows={1: 8, 2: 8},
        extra_queries=(1, 2),
        extra_rows=8,
        tokens=True,
    ),
)


def find(name: str, quick: bool) -> Workload:
    """The workload of that name."""
    return next(workload for workload in (QUICK if quick else FULL) if workload.name == name)
