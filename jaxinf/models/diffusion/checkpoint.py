"""An EDM on disk: its settings as JSON beside its weights as an orbax checkpoint."""

import json
from pathlib import Path

import jax

from jaxinf.errors import InputError
from jaxinf.models.diffusion.edm import EDM, init_params
from jaxinf.models.storage import load_variables, save_variables
from jaxinf.typing import Params

_FIELDS = ("image_shape", "num_classes", "widths", "sigma_data")


def save_edm(path: str | Path, model: EDM, params: Params) -> Path:
    """Save a model: `edm.json` and the folder `weights` in `path`, which is created.

    Raises:
        InputError: there are weights already.

    Example:
        >>> import tempfile, numpy as np
        >>> model = EDM((4, 4, 1), num_classes=2, widths=(8,))
        >>> shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
        >>> params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
        >>> folder = save_edm(tempfile.mkdtemp(), model, params)
        >>> load_edm(folder)[0] == model
        True
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    save_variables(folder / "weights", params)
    settings = {name: getattr(model, name) for name in _FIELDS}
    (folder / "edm.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return folder


def load_edm(path: str | Path) -> tuple[EDM, Params]:
    """Load what `save_edm` saved.

    Raises:
        InputError: no model there, or settings and weights that do not belong together.

    Example:
        >>> load_edm("absent")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: absent: no edm.json there
    """
    file = Path(path) / "edm.json"
    if not file.is_file():
        raise InputError(f"{path}: no edm.json there")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        height, width, channels = map(int, found["image_shape"])
        model = EDM(
            image_shape=(height, width, channels),
            num_classes=int(found["num_classes"]),
            widths=tuple(map(int, found["widths"])),
            sigma_data=float(found["sigma_data"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not the settings of an EDM ({error})") from error
    like = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    return model, load_variables(Path(path) / "weights", like=like)
