"""The PyTorch side of `benchmarks.forward_inf`: the released loop, and a tuned one."""

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import torch_models
from benchmarks.common import serve
from benchmarks.workloads import VOCABULARY, Workload, find

Batches = list[dict[str, torch.Tensor]]
LossFn = Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]


def build(workload: Workload) -> torch.nn.Module:
    """The twin of the workload's flax model."""
    if workload.model == "MLP":
        return torch_models.MLP(workload.example_shape[0], workload.sizes["hidden"])
    if workload.model == "SmallCNN":
        return torch_models.SmallCNN(**workload.sizes)
    if workload.model == "ResNet18":
        return torch_models.ResNet18(**workload.sizes)
    return torch_models.Transformer(**{"vocab_size": VOCABULARY} | workload.sizes)


def stepped(
    model: torch.nn.Module, query: dict[str, torch.Tensor], loss: LossFn, learning_rate: float
) -> torch.nn.Module:
    """A copy of the model after one step of SGD on the query, in evaluation mode."""
    moved = copy.deepcopy(model)
    optimizer = torch.optim.SGD(moved.parameters(), lr=learning_rate)
    loss(moved(query["x"]), query).mean().backward()
    optimizer.step()
    return moved


def released(
    model: torch.nn.Module, queries: Batches, train: Batches, loss: LossFn, learning_rate: float
) -> tuple[np.ndarray, float]:
    """The loop of the paper's notebook: both losses of each batch, for each query anew.

    As there, autograd records the forward passes.

    Returns:
        loss(z; θ) − loss(z; θ′), float[K, N], and the seconds that scoring took.
    """
    rows, seconds = [], 0.0
    for query in queries:
        moved = stepped(model, query, loss, learning_rate)
        began = _now()
        row = []
        for batch in train:
            after = loss(moved(batch["x"]), batch)
            before = loss(model(batch["x"]), batch)
            row.append((before - after).detach().cpu().numpy())
        seconds += _now() - began
        rows.append(np.concatenate(row))
    return np.stack(rows), seconds


_ROUNDS = 3


class Tuned:
    """What a careful user of PyTorch would run: no autograd, base losses once, best settings.

    One compiled model; the weights after each query's step are copied into it.
    """

    def __init__(self, model: torch.nn.Module, batch: dict[str, torch.Tensor], loss: LossFn):
        """Try eager and compiled, memory layouts and thread counts on one batch; keep the best."""
        self.original, self.loss = model, loss
        self.notes: list[str] = []
        began = _now()
        cores = torch.get_num_threads()
        made = {"eager": copy.deepcopy(model)}
        if batch["x"].ndim == 4:
            made["eager, channels last"] = copy.deepcopy(model).to(
                memory_format=torch.channels_last  # pyright: ignore[reportCallIssue]
            )
        for kind in list(made):
            network = copy.deepcopy(made[kind])
            network.compile()
            made[kind.replace("eager", "compiled")] = network
        tried: dict[tuple[str, int], float] = {}
        # rounds, so that a disturbance of the machine does not decide
        for _ in range(_ROUNDS):
            for kind, network in list(made.items()):
                for threads in {cores, max(1, cores // 2)}:
                    torch.set_num_threads(threads)
                    try:
                        seconds = self._time(network, batch)
                    except Exception as error:  # noqa: BLE001 - no compiler, or it fails
                        self.notes.append(f"{kind} failed: {str(error).splitlines()[0][:200]}")
                        del made[kind]
                        break
                    known = tried.get((kind, threads), seconds)
                    tried[kind, threads] = min(seconds, known)
        kind, threads = min((k for k in tried if k[0] in made), key=lambda k: tried[k])
        torch.set_num_threads(threads)
        self.network = made[kind]
        self.setup_seconds = _now() - began
        self.notes.append(f"{kind}, {threads} thread(s)")
        self.tried = {f"{k}, {t} thread(s)": seconds for (k, t), seconds in tried.items()}

    def _time(self, network: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
        times = []
        with torch.inference_mode():
            for _ in range(4):
                began = _now()
                self.loss(network(batch["x"]), batch)
                times.append(_now() - began)
        return min(times[1:])

    def score(
        self, queries: Batches, train: Batches, learning_rate: float
    ) -> tuple[np.ndarray, float]:
        """loss(z; θ) − loss(z; θ′), float[K, N], and the seconds that scoring took."""
        began = _now()
        base = self._losses(self.original, train)
        seconds = _now() - began
        rows = []
        for query in queries:
            moved = stepped(self.original, query, self.loss, learning_rate)
            began = _now()
            rows.append(base - self._losses(moved, train))
            seconds += _now() - began
        return np.stack(rows), seconds

    def _losses(self, source: torch.nn.Module, train: Batches) -> np.ndarray:
        with torch.inference_mode():
            for held, new in zip(self.network.parameters(), source.parameters(), strict=True):
                held.copy_(new)
            losses = [self.loss(self.network(batch["x"]), batch) for batch in train]
            return torch.cat(losses).cpu().numpy()


def main(config: dict[str, Any]) -> None:
    """Serve one contender on one workload."""
    folder, name = Path(config["folder"]), config["contender"]
    workload = find(config["workload"], config["quick"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # the same float32 as jaxinf's matmul_precision="highest"
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(config["cores"])
    with np.load(folder / "weights.npz") as saved:
        model = torch_models.load_flax(build(workload), dict(saved)).to(device)
    loss = torch_models.next_token_cross_entropy if workload.tokens else torch_models.cross_entropy
    train, queries = (
        _tensors(dict(np.load(folder / f"{part}.npz")), device) for part in ("train", "queries")
    )
    size = workload.batch_size
    tuned = Tuned(model, _cut(train, 0, size), loss) if name == "torch_tuned" else None
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(train["x"][:1])
    flops = counter.get_total_flops()

    def answer(queries_count: int, rows: int, warm_up: bool = False) -> dict[str, Any]:
        if warm_up:
            queries_count, rows = 1, size
        few = [_cut(queries, i, i + 1) for i in range(queries_count)]
        many = [_cut(train, i, min(i + size, rows)) for i in range(0, rows, size)]
        began = _now()
        if tuned is not None:
            scores, seconds = tuned.score(few, many, workload.learning_rate)
        else:
            scores, seconds = released(model, few, many, loss, workload.learning_rate)
        if not warm_up:
            np.save(folder / f"{name}-{queries_count}.npy", scores)
        cuda = device == "cuda"
        return {
            "seconds": seconds,
            "compile_seconds": tuned.setup_seconds if tuned else 0.0,
            "prepare_seconds": _now() - began - seconds,
            "device_peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "notes": "; ".join(tuned.notes) if tuned else f"{torch.get_num_threads()} thread(s)",
            "tried": tuned.tried if tuned else {},
            "flops_per_row": flops,
            "product_flops": _large_product(device),
        }

    serve(answer)


def _large_product(device: str) -> float:
    """FLOP/s of a large float32 matrix product, the most that this library gets here."""
    side = 2048 if device == "cpu" else 8192
    left = torch.ones(side, side, device=device)
    seconds = []
    for _ in range(4):
        began = _now()
        left @ left
        seconds.append(_now() - began)
    return 2 * side**3 / min(seconds)


def _tensors(arrays: dict[str, np.ndarray], device: str) -> dict[str, torch.Tensor]:
    found = {key: torch.from_numpy(a) for key, a in arrays.items()}
    found = {key: a if a.is_floating_point() else a.long() for key, a in found.items()}
    if found["x"].ndim == 4:
        found["x"] = found["x"].permute(0, 3, 1, 2).contiguous()
    return {key: a.to(device) for key, a in found.items()}


def _cut(arrays: dict[str, torch.Tensor], start: int, stop: int) -> dict[str, torch.Tensor]:
    return {key: a[start:stop] for key, a in arrays.items()}


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main(json.loads(sys.argv[sys.argv.index("--worker") + 1]))
