"""What `jaxinf diffusion` reads: a checkpoint and two sets of images, or the user's contract."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxinf.applications.diffusion import check_generated, denoising_loss, draw_noise
from jaxinf.cli.contract import Contract, load_contract
from jaxinf.cli.rows import Rows, Wanted
from jaxinf.cli.tables import read_rows
from jaxinf.errors import InputError
from jaxinf.influence import QueryGroups
from jaxinf.models.diffusion import load_edm, sample
from jaxinf.models.diffusion.edm import P_MEAN
from jaxinf.typing import Batch, Params


def from_contract(name: str) -> Contract:
    """The user's own model: `influence()` as for `jaxinf influence`, its loss a denoising loss.

    Raises:
        InputError: as `load_contract`; queries or training images that are no `{"x", "y"}`, or
            do not fit one another.
    """
    contract = load_contract(name)
    if isinstance(contract.queries, dict) and isinstance(contract.train, dict):
        check_generated(contract.queries, contract.train)
    elif not isinstance(contract.queries, QueryGroups | dict):
        raise InputError(f"{name}: queries must be a dict with x, the images, and y, their classes")
    return contract


def from_files(
    checkpoint: Path,
    train: Path,
    generated: Path,
    *,
    size: int | None,
    draws: int,
    seed: int,
    p_mean: float | None = None,
) -> Contract:
    """Our EDM, its training images and generated images, as a contract.

    The noise levels of its loss have the training's mean of ln σ, or `p_mean`.

    Raises:
        InputError: a file that cannot be read, images that are not the model's, classes that it
            does not have, or that the training images do not name.
    """
    model, params = load_edm(checkpoint)
    candidates = read_rows(train, Wanted(size=size))
    asked = read_rows(generated, Wanted(size=size, side="test"))
    names = class_names(candidates.labels)
    sets = [as_images(rows, names, model.image_shape[2]) for rows in (asked, candidates)]
    check_generated(*sets, num_classes=model.num_classes)
    if sets[0]["x"].shape[1:] != model.image_shape:
        raise InputError(
            f"{generated}: images are {list(sets[0]['x'].shape[1:])}, but the model's are "
            f"{list(model.image_shape)}: give --size {model.image_shape[0]}"
        )
    mean = P_MEAN if p_mean is None else p_mean
    drawn = draw_noise(jax.random.key(seed), draws, model.image_shape, p_mean=mean)
    loss = denoising_loss(model, drawn)

    def describe(example: Any) -> tuple[str, np.ndarray]:
        label = int(example["y"])
        named = names[label] if label < len(names) else f"class {label}"
        return named, np.clip((np.asarray(example["x"]) + 1) / 2, 0, 1)

    return Contract(loss, params, sets[0], sets[1], describe=describe)


def weights_before(checkpoint: Path, before: Path) -> Params:
    """The weights from before the tuning.

    Raises:
        InputError: no model there, or one with other settings than the tuned one.
    """
    (model, _), (old, params) = load_edm(checkpoint), load_edm(before)
    if model != old:
        raise InputError(
            f"{before} and {checkpoint} are different models: their edm.json must be alike"
        )
    return params


def images_before(before: Path, queries: Batch, noise_seed: int) -> Batch:
    """What the weights from before the tuning make of the same noise: one image per query."""
    model, params = load_edm(before)
    labels = np.asarray(queries["y"])
    return {"x": sample(model, params, labels, jax.random.key(noise_seed)), "y": labels}


def class_names(labels: np.ndarray) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers; none where labels are numbers.

    Example:
        >>> class_names(np.array(["dog", "cat", "dog"])), class_names(np.array([3, 1]))
        (('cat', 'dog'), ())
    """
    return tuple(np.unique(labels).tolist()) if labels.dtype.kind == "U" else ()


def as_images(rows: Rows, names: tuple[str, ...], channels: int) -> dict[str, np.ndarray]:
    """Images as the model takes them: float32 in [−1, 1], grey where it is, classes by number.

    Raises:
        InputError: no images, floats outside [−1, 1], or a class without a number.

    Example:
        >>> rows = Rows("r", np.array(["b"]), inputs=np.full((1, 2, 2, 3), 255, np.uint8))
        >>> found = as_images(rows, ("a", "b"), 1)
        >>> found["x"].shape, float(found["x"].max()), found["y"].tolist()
        ((1, 2, 2, 1), 1.0, [1])
    """
    x = rows.inputs
    if x is None or x.ndim != 4:
        raise InputError(f"{rows.name}: images [N, H, W, c] are needed")
    if x.dtype == np.uint8:
        x = x.astype(np.float32) / 127.5 - 1
    elif x.dtype.kind != "f" or not np.isfinite(x).all() or np.abs(x).max(initial=0) > 1.001:
        raise InputError(f"{rows.name}: pixels must be bytes, or floats in [-1, 1]")
    if channels == 1 and x.shape[3] == 3:
        x = x.mean(axis=3, keepdims=True)
    labels = rows.labels
    if labels.dtype.kind == "U":
        unknown = sorted(set(labels.tolist()) - set(names))
        if unknown:
            raise InputError(
                f"{rows.name}: class {unknown[0]!r} is none of the training images' "
                f"({', '.join(names[:8]) or 'which are numbers'})"
            )
        labels = np.searchsorted(np.asarray(names), labels)
    return {"x": x.astype(np.float32), "y": labels.astype(np.int32)}


def is_contract(name: str) -> bool:
    """Whether a Python file or module is meant, and no checkpoint.

    Example:
        >>> is_contract("mine.py"), is_contract("no/such/folder")
        (True, False)
    """
    return name.endswith(".py") or ("/" not in name and not Path(name).exists())
