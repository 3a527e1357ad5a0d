"""dattri's attributors on the same models, in a process of their own, for `benchmarks.lds`.

dattri 0.3.0 asks for packages of music transcription that are not needed here, so it is installed
without them, beside a CPU or GPU build of PyTorch:

    pip install torch scipy pyyaml tqdm
    pip install --no-deps dattri==0.3.0
    python -m benchmarks.lds --dattri PATH/TO/ITS/python

Losses, targets and projections are those of its own benchmark (512 dimensions; the loss for
influence functions, TracIn and gradients; the margin for TRAK, for a text that of its mean loss).
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import serve

# regularisations, or scalings, that its benchmark searches
SEARCH: dict[str, tuple[dict[str, Any], ...]] = {
    "IF-CG": tuple({"regularization": r, "max_iter": 10} for r in (1.0, 1e-1, 1e-2, 1e-3)),
    "IF-LiSSA": tuple({"recursion_depth": 100, "batch_size": b} for b in (100, 50)),
    "TracIn": ({},),
    "Grad-Dot": ({},),
    "Grad-Cos": ({},),
    "TRAK": ({},),
}


def main(config: dict[str, Any]) -> None:
    """Serve: read the problem and the models from the folder, write one method's scores there."""
    import torch
    from dattri import algorithm
    from dattri.task import AttributionTask
    from torch.utils.data import DataLoader, TensorDataset

    from benchmarks import torch_models

    folder = Path(config["folder"])
    torch.set_num_threads(config["threads"])
    build = lambda: getattr(torch_models, config["kind"])(**config["sizes"])
    with np.load(folder / "problem.npz") as saved:
        given = {name: torch.from_numpy(saved[name]) for name in saved.files}
    with np.load(folder / "models.npz") as saved:
        stacked = {path: saved[path] for path in saved.files}
    checkpoints = [
        torch_models.load_flax(build(), {path: a[m] for path, a in stacked.items()}).state_dict()
        for m in range(len(next(iter(stacked.values()))))
    ]
    network = build().eval()
    is_text = config["kind"] == "Transformer"

    def side(name: str) -> TensorDataset:
        x = given["x" + name]
        if is_text:
            return TensorDataset(x.long(), x.long())
        # channels come second in PyTorch
        x = x.flatten(1) if config["kind"] == "MLP" else x.permute(0, 3, 1, 2).contiguous()
        return TensorDataset(x, given["y" + name].long())

    train, queries = side(""), side("q")
    per_example = torch_models.next_token_cross_entropy if is_text else torch_models.cross_entropy

    def mean_loss(params: Any, pair: Any) -> Any:
        # LiSSA draws its samples into arrays of one dtype
        outputs = torch.func.functional_call(network, params, pair[0])
        return per_example(outputs, {"x": pair[0], "y": pair[1].long()}).mean()

    def loss_of_one(params: Any, pair: Any) -> Any:
        x, y = pair
        return mean_loss(params, (x[None], y[None]))

    def margin_of_one(params: Any, pair: Any) -> Any:
        logp = -loss_of_one(params, pair)
        return logp - torch.log(1 - torch.exp(logp))

    def probability(params: Any, pair: Any) -> Any:
        return torch.exp(-loss_of_one(params, pair))

    def attributor(method: str, models: int, settings: dict[str, Any]) -> Any:
        used: Any = checkpoints[:models]
        if method == "TRAK":
            task = AttributionTask(margin_of_one, network, used)
            return algorithm.TRAKAttributor(
                task=task,
                correct_probability_func=probability,
                projector_kwargs={"proj_dim": 512, "device": "cpu"},
            )
        if method.startswith("IF-"):
            kind = {"IF-CG": "IFAttributorCG", "IF-LiSSA": "IFAttributorLiSSA"}[method]
            task = AttributionTask(mean_loss, network, used[0])
            return getattr(algorithm, kind)(task=task, **settings)
        return algorithm.TracInAttributor(
            task=AttributionTask(loss_of_one, network, used),
            weight_list=torch.ones(models) * 1e-3,
            normalized_grad=method == "Grad-Cos",
        )

    def answer(method: str, models: int, settings: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        found = attributor(method, models, settings)
        # it solves for every query anew with each batch of training examples: one batch, then
        rows = DataLoader(train, len(train) if method.startswith("IF-") else 500)
        asked = DataLoader(queries, batch_size=500)
        if method == "TRAK" or method.startswith("IF-"):
            found.cache(rows)
        with torch.no_grad():
            scores = found.attribute(asked) if method == "TRAK" else found.attribute(rows, asked)
        np.save(folder / "scores.npy", scores.T.numpy())
        return {"seconds": time.perf_counter() - began}

    serve(answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
