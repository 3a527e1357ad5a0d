"""The contenders of `benchmarks.clip`, each served in a process of its own."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import serve

VIEWS = 24
# image size, patch, vision (width, layers, heads), text (width, layers, heads), embedding
ARCHITECTURES = {
    "base-32": (224, 32, (768, 12, 12), (512, 12, 8), 512),
    "large-14": (224, 14, (1024, 24, 16), (768, 12, 12), 768),
    "tiny": (32, 8, (64, 2, 2), (64, 2, 2), 64),
}
CONTEXT, VOCABULARY = 77, 49408


def work_jaxinf(config: dict[str, Any]) -> None:
    """Serve the jaxinf contender: rows split over all devices, one per core on a CPU."""
    import jax
    import jax.numpy as jnp
    from jax.tree_util import Partial

    from jaxinf.engine import data_mesh
    from jaxinf.engine.mesh import data_parallel, replicate, split_rows
    from jaxinf.membership import view_similarities
    from jaxinf.models.clip import fused_attention, load

    jax.config.update("jax_num_cpu_devices", config["cores"])
    precision = config["precision"]
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    trained, preprocess, _ = load(
        Path(config["folder"]) / "model", dtype=dtype, kernel=fused_attention(dtype)
    )
    with np.load(Path(config["folder"]) / "inputs.npz") as stored:
        inputs = dict(stored)
    mesh = data_mesh()
    model = replicate(trained, mesh)
    rows = split_rows(inputs, mesh)

    def encode_image(model: Any, pixels: jax.Array) -> jax.Array:
        return model.encode_image(preprocess.normalise(pixels))

    def encode(model: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        return encode_image(model, batch["images"]), model.encode_text(batch["tokens"])

    def aea(model: Any, batch: Any) -> jax.Array:
        return view_similarities(
            Partial(encode_image, model),
            batch["images"],
            model.encode_text(batch["tokens"]),
            key=jax.random.key(0),
            draws=VIEWS // 6,
            batch_size=config["view_batch"],
        ).views

    tasks = {"encode": data_parallel(encode, mesh), "aea": data_parallel(aea, mesh)}

    def answer(task: str, calls: int = 1) -> dict[str, Any]:
        if task == "features":
            found = [np.asarray(side) for side in tasks["encode"](model, rows)]
            return {"features": [side.reshape(-1, side.shape[-1]).tolist() for side in found]}
        if task == "peak":
            return {"flops": _matmul_peak(precision), "device": jax.devices()[0].device_kind}
        began = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(tasks[task](model, rows))
        return {"seconds": (time.perf_counter() - began) / calls}

    serve(answer)


def _matmul_peak(precision: str) -> float:
    """Measured operations per second of a large matrix product, over all devices."""
    import jax
    import jax.numpy as jnp

    from jaxinf.engine import data_mesh
    from jaxinf.engine.mesh import data_parallel, num_shards, split_rows

    mesh = data_mesh()
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a = split_rows(np.ones((num_shards(mesh) * side, side), jnp.dtype(precision)), mesh)
    product = data_parallel(lambda _, a: a @ a, mesh)
    jax.block_until_ready(product(0, a))
    best = np.inf
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(product(0, a))
        best = min(best, time.perf_counter() - began)
    return 2.0 * num_shards(mesh) * side**3 / best


def work_torch(config: dict[str, Any]) -> None:
    """Serve the PyTorch contender; the first one writes the checkpoint."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    torch.set_num_threads(config["cores"])
    folder = Path(config["folder"])
    if not (folder / "model").exists():
        size, patch, vision, text, embed = ARCHITECTURES[config["architecture"]]
        tower = lambda shape: {
            "hidden_size": shape[0],
            "intermediate_size": 4 * shape[0],
            "num_hidden_layers": shape[1],
            "num_attention_heads": shape[2],
            "hidden_act": "quick_gelu",
        }
        made = CLIPConfig(
            text_config={**tower(text), "eos_token_id": VOCABULARY - 1},
            vision_config={**tower(vision), "image_size": size, "patch_size": patch},
            projection_dim=embed,
        )
        CLIPModel(made).save_pretrained(folder / "model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if config["precision"] == "bfloat16" else torch.float32
    model: Any = CLIPModel.from_pretrained(folder / "model")
    model = model.eval().to(device, kind)
    inputs = np.load(folder / "inputs.npz")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073], device=device).view(1, 3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711], device=device).view(1, 3, 1, 1)
    images = torch.from_numpy(inputs["images"]).to(device).permute(0, 3, 1, 2).contiguous()
    tokens = torch.from_numpy(inputs["tokens"]).long().to(device)

    def encode_image(pixels: Any) -> Any:
        x = ((pixels.float() / 255 - mean) / std).to(kind)
        pooled = model.vision_model(pixel_values=x).pooler_output
        return torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1)

    def encode_text(tokens: Any) -> Any:
        pooled = model.text_model(input_ids=tokens).pooler_output
        return torch.nn.functional.normalize(model.text_projection(pooled), dim=-1)

    if config["compiled"]:
        encode_image, encode_text = torch.compile(encode_image), torch.compile(encode_text)

    def aea() -> Any:
        text = encode_text(tokens)
        # each step as many images as in plain encoding, all views of them made beforehand
        return [(encode_image(images) * text).sum(1) for _ in range(VIEWS + 1)]

    tasks = {"encode": lambda: (encode_image(images), encode_text(tokens)), "aea": aea}

    def answer(task: str, calls: int = 1) -> dict[str, Any]:
        with torch.inference_mode():
            if task == "peak":
                return {"flops": _torch_matmul_peak(device, kind)}
            if task == "features":
                return {"features": [side.float().cpu().tolist() for side in tasks["encode"]()]}
            began = time.perf_counter()
            for _ in range(calls):
                tasks[task]()
                if device == "cuda":
                    torch.cuda.synchronize()
        return {"seconds": (time.perf_counter() - began) / calls}

    serve(answer)


def _torch_matmul_peak(device: str, kind: Any) -> float:
    """Measured operations per second of a large matrix product by PyTorch."""
    import torch

    side = 2048 if device == "cpu" else 8192
    a = torch.ones((2 * side, side), device=device, dtype=kind)
    best = np.inf
    for _ in range(6):
        began = time.perf_counter()
        a @ a[:side]
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 4.0 * side**3 / best
