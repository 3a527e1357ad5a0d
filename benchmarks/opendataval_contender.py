"""opendataval's own evaluators, in a process of their own, for `benchmarks.lava_detection`.

opendataval 1.3.0 asks for versions of torch and numpy that current JAX cannot share, so it runs
in an environment of its own:

    pip install --no-deps opendataval==1.3.0 geomloss==0.2.6 torcheval
    pip install torch pandas scikit-learn tqdm matplotlib
    python -m benchmarks.lava_detection --opendataval PATH/TO/ITS/python
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.common import serve

# what only its image sets, its downloads and its BERT need, none of them used here
_UNUSED = (
    "requests",
    "transformers",
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


def main(config: dict[str, Any]) -> None:
    """Serve: read the sets from the folder, write the values of one evaluator there."""
    sys.modules |= {name: mock.MagicMock() for name in _UNUSED}
    import torch
    from opendataval.dataval.knnshap.knnshap import KNNShapley
    from opendataval.dataval.lava.lava import LavaEvaluator

    folder = Path(config["folder"])
    evaluators = {
        "opendataval lava": LavaEvaluator,
        "opendataval knn-shapley": lambda: KNNShapley(k_neighbors=10),
    }

    def answer(method: str) -> dict[str, Any]:
        with np.load(folder / "sets.npz") as saved:
            sets = {name: torch.from_numpy(saved[name]) for name in saved.files}
        count = int(max(sets["y"].max(), sets["yv"].max())) + 1
        one_hot = lambda labels: torch.nn.functional.one_hot(labels.long(), count).float()
        evaluator = evaluators[method]()
        evaluator.input_data(sets["x"], one_hot(sets["y"]), sets["xv"], one_hot(sets["yv"]))
        values = evaluator.train_data_values().evaluate_data_values()
        np.save(folder / "values.npy", np.asarray(values, np.float64))
        return {}

    serve(answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
