"""A TOML file in place of a Python one: our models, their weights, and data files by name."""

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinf import models
from jaxinf.adapters import from_linen, stateful_from_linen
from jaxinf.cli.contract import Contract
from jaxinf.cli.data import DATA_KEYS, read_examples
from jaxinf.errors import InputError, check_labels

_MODELS = {
    "mlp": models.MLP,
    "small_cnn": models.SmallCNN,
    "batch_norm_cnn": models.BatchNormCNN,
    "resnet9": models.ResNet9,
    "resnet18": models.ResNet18,
    "preact_resnet18": models.PreActResNet18,
}
_SECTIONS = {
    "model": None,  # further keys are the module's own
    "train": DATA_KEYS,
    "queries": DATA_KEYS,
    "method": {"name", "normalise", "learning_rate", "steps", "batch_size", "top_k", "seed"},
}


def load_config(path: Path) -> tuple[Contract, dict[str, Any]]:
    """Read a TOML file: `[model]`, `[train]`, `[queries]` and optionally `[method]`.

        [model]
        name = "cifar_resnet"        # or mlp, small_cnn, batch_norm_cnn, resnet9, resnet18, ...
        weights = "resnet20.npz"     # cifar_resnet; for the others a folder from save_variables
        [train]
        path = "cifar-10-batches-py"
        format = "cifar10"           # npz, mnist, cifar10, cifar100, jpeg-pack, image-folder
        limit = 5000
        mean = [0.485, 0.456, 0.406]
        std = [0.229, 0.224, 0.225]
        classes = ["airplane", ...]  # where the files do not name them
        [queries]
        path = "cifar-10-batches-py"
        format = "cifar10"
        split = "test"
        indices = [0, 1, 2]
        [method]
        name = "grad-cos"

    What `[queries]` leaves out of format, mean, std and size is as in `[train]`. Paths are
    relative to the file. Further keys of `[model]` go to the module, such as `hidden = [128]`.

    Args:
        path: the file.

    Returns:
        The contract, and the options under `[method]`.

    Raises:
        InputError: no such file, no TOML, a section or key that is missing or unknown, or weights
            and data that do not fit.

    Example:
        >>> load_config(Path("absent.toml"))
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent.toml: no such file
    """
    config = _read(path)
    shared = {
        key: config["train"][key]
        for key in DATA_KEYS & {"format", "mean", "std", "size"}
        if key in config["train"]
    }
    train = read_examples(config["train"], path.parent, f"{path}: [train]")
    queries = read_examples(shared | config["queries"], path.parent, f"{path}: [queries]")
    module, variables = _load_model(config["model"], path, train.examples["x"].shape[1:])
    num_classes = _num_classes(module, variables, train.examples["x"])
    for name, data in (("train", train), ("queries", queries)):
        check_labels(data.examples["y"], num_classes, f"{path}: labels of [{name}]")
    loss_fn, params = from_linen(module, variables, models.cross_entropy, train=False)
    stateful_loss, (_, state) = stateful_from_linen(module, variables, models.cross_entropy)
    contract = Contract(
        loss_fn=loss_fn,
        params=params,
        queries=queries.examples,
        train=train.examples,
        describe=_describe(train.classes, train.moments),
        stateful_loss=stateful_loss,
        state=state,
    )
    return contract, config.get("method", {})


def _read(path: Path) -> dict[str, Any]:
    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} is no TOML file ({error})") from error
    for section in ("model", "train", "queries"):
        if not isinstance(config.get(section), Mapping):
            raise InputError(f"{path} has no section [{section}]")
    for section, content in config.items():
        if section not in _SECTIONS:
            raise InputError(
                f"{path}: section [{section}] is unknown: there are {', '.join(_SECTIONS)}"
            )
        known = _SECTIONS[section]
        if known is not None and (unknown := sorted(set(content) - known)):
            raise InputError(
                f"{path}: [{section}] has no key {unknown[0]}: there are {', '.join(sorted(known))}"
            )
    for key in ("name", "weights"):
        if not isinstance(config["model"].get(key), str):
            raise InputError(f"{path}: [model] needs {key}, a text")
    return config


def _load_model(section: Mapping[str, Any], path: Path, shape: tuple[int, ...]) -> tuple[Any, Any]:
    options = {key: value for key, value in section.items() if key not in ("name", "weights")}
    name, weights = section["name"], path.parent / section["weights"]
    depth = re.fullmatch(r"cifar_resnet(\d*)", name)
    if depth:
        if options:
            raise InputError(f"{path}: [model] {name} has no key {min(options)}")
        module, variables = models.load_cifar_resnet(weights)
        if depth[1] and module.depth != int(depth[1]):
            raise InputError(f"{weights} holds a ResNet of depth {module.depth}, not {depth[1]}")
        return module, variables
    if name not in _MODELS:
        raise InputError(
            f"{path}: [model] name {name!r} is unknown: choose from cifar_resnet, "
            f"{', '.join(_MODELS)}"
        )
    try:
        module = _MODELS[name](**options)
    except TypeError as error:
        raise InputError(f"{path}: [model] {error}") from error
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    like = jax.eval_shape(module.init, jax.random.key(0), x)
    return module, models.load_variables(weights, like)


def _num_classes(module: Any, variables: Any, x: np.ndarray) -> int:
    try:
        return jax.eval_shape(module.apply, variables, x[:1]).shape[-1]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{type(module).__name__} cannot be run on examples of shape {x.shape[1:]} "
            f"({str(error).splitlines()[0]})"
        ) from error


def _describe(
    classes: tuple[str, ...], moments: tuple[np.ndarray, np.ndarray]
) -> Callable[[Mapping[str, Any]], tuple[str, np.ndarray]]:
    """Captions by class name, and pictures as they were before they were standardised."""
    mean, std = moments

    def describe(example: Mapping[str, Any]) -> tuple[str, np.ndarray]:
        label = int(example["y"])
        named = classes[label] if label < len(classes) else f"class {label}"
        return named, np.asarray(example["x"]) * std + mean

    return describe
