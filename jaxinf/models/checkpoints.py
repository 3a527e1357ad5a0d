"""The folder of a training run: what the run was, and one checkpoint per saved epoch."""

import json
import os
import re
from pathlib import Path

import jax
import numpy as np

from jaxinf.errors import InputError
from jaxinf.models.storage import arrange, load_variables, save_variables
from jaxinf.typing import PyTree

# orbax writes under a longer, temporary name first: a name that matches is a whole checkpoint
_EPOCH = re.compile(r"epoch_(\d{6})")


def open_run(directory: str | Path, identity: dict[str, str | int]) -> Path:
    """Create a run's folder, or make sure that the one there belongs to the same run.

    Args:
        directory: the folder.
        identity: what defines the run, compared entry by entry with `run.json` in the folder.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds another run; names what differs.

    Example:
        >>> import tempfile
        >>> directory = open_run(tempfile.mkdtemp(), {"batch_size": 8})
        >>> open_run(directory, {"batch_size": 9})
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: ... holds another run (other batch_size): choose another folder
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    record = directory / "run.json"
    if record.exists():
        there = json.loads(record.read_text())
        other = [name for name in identity if there.get(name) != identity[name]]
        if other:
            raise InputError(
                f"{directory} holds another run (other {', '.join(other)}): choose another folder"
            )
    elif saved_epochs(directory):
        raise InputError(f"{directory} holds checkpoints but no run.json: choose another folder")
    else:
        temporary = directory / f"run.json.{os.getpid()}"
        temporary.write_text(json.dumps(identity, indent=1))
        os.replace(temporary, record)
    return directory


def saved_epochs(directory: str | Path) -> list[int]:
    """Epochs with a whole checkpoint in a run's folder, ascending: trained so many times over."""
    matches = (_EPOCH.fullmatch(entry.name) for entry in Path(directory).glob("epoch_*"))
    return sorted(int(match[1]) for match in matches if match)


def epoch_path(directory: str | Path, epoch: int) -> Path:
    """Where the checkpoint after `epoch` epochs lies."""
    return Path(directory) / f"epoch_{epoch:06d}"


def save_epoch(directory: str | Path, epoch: int, tree: PyTree) -> None:
    """Save the checkpoint after `epoch` epochs."""
    save_variables(epoch_path(directory, epoch), tree)


def load_checkpoints(directory: str | Path, like: PyTree = None) -> tuple[PyTree, np.ndarray]:
    """Load the parameters of every checkpoint of a run, stacked, for methods over checkpoints.

    Args:
        directory: what was handed to `fit` as `checkpoints`.
        like: parameters whose structure the result shall have; needed only where they are more
            than nested dicts and lists.

    Returns:
        Parameters whose leaves are numpy arrays with a leading axis over checkpoints, and the
        epochs int[num_checkpoints] after which each was saved, ascending.

    Raises:
        InputError: the folder holds no checkpoint.

    Example:
        >>> import tempfile
        >>> directory = tempfile.mkdtemp()
        >>> for epoch in (1, 2):
        ...     save_epoch(directory, epoch, {"params": {"w": np.full(3, epoch)}})
        >>> stacked, epochs = load_checkpoints(directory)
        >>> stacked["w"].shape, epochs.tolist()
        ((2, 3), [1, 2])
    """
    epochs = saved_epochs(directory)
    if not epochs:
        raise InputError(f"{directory} holds no checkpoint: pass checkpoints= to fit")
    loaded = [load_variables(epoch_path(directory, epoch))["params"] for epoch in epochs]
    if like is not None:
        loaded = [arrange(params, like, directory) for params in loaded]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *loaded), np.asarray(epochs)
