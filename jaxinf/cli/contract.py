"""The user's own model and data: what `jaxinf influence` scores, and where it comes from."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxinf.errors import InputError

_REQUIRED = ("loss_fn", "params", "queries", "train")


class Contract(NamedTuple):
    """What the influence question needs.

    Attributes:
        loss_fn: `(params, batch) -> float[B]`, in evaluation mode.
        params: what is differentiated.
        queries: K examples, a pytree of arrays with leading axis K.
        train: N examples, or any source that `jaxinf.attribute` takes.
        attributor: a method of one's own, in place of the named ones.
        describe: `(example) -> caption`, picture array, or `(caption, picture)`; `example` has no
            leading axis.
        stateful_loss: for the method `released`; `state` goes with it.
        state: the model's state, such as BatchNorm statistics.
        clean: queries known not to be trained on, built like the queries; for `jaxinf leakage`.
    """

    loss_fn: Callable[..., Any]
    params: Any
    queries: Any
    train: Any
    attributor: Any = None
    describe: Callable[[Any], Any] | None = None
    stateful_loss: Callable[..., Any] | None = None
    state: Any = None
    clean: Any = None


def load_contract(name: str) -> Contract:
    """Run the `influence` function of a Python file or of an importable module.

    Args:
        name: `path/to/file.py`, or `package.module`.

    Returns:
        The contract.

    Raises:
        InputError: no such file or module, one that fails to import, no function `influence`, one
            that fails, or a result that lacks something or has something unknown.

    Example:
        >>> load_contract("no_such_file.py")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no_such_file.py: no such file
    """
    module = _import(name)
    function = getattr(module, "influence", None)
    if not callable(function):
        raise InputError(
            f"{name} has no function influence(): define one that returns a dict with "
            f"{', '.join(_REQUIRED)}"
        )
    try:
        found = function()
    except Exception as error:
        raise InputError(f"{name}: influence() failed with {_reason(error)}") from error
    return as_contract(found, f"{name}: influence()")


def as_contract(found: Any, name: str) -> Contract:
    """Check what `influence()` returned.

    Raises:
        InputError: naming what is missing or unknown.
    """
    if isinstance(found, tuple) and hasattr(found, "_asdict"):
        found = found._asdict()  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(found, Mapping):
        raise InputError(
            f"{name} returned a {type(found).__name__}: return a dict with {', '.join(_REQUIRED)}"
        )
    if missing := [key for key in _REQUIRED if key not in found]:
        raise InputError(f"{name} returned no {' and no '.join(missing)}: add it to the dict")
    if unknown := sorted(set(found) - set(Contract._fields)):
        raise InputError(
            f"{name} returned {', '.join(map(str, unknown))}, which means nothing here: the keys "
            f"are {', '.join(Contract._fields)}"
        )
    contract = Contract(**found)
    for key in ("loss_fn", "describe", "stateful_loss"):
        value = getattr(contract, key)
        if not callable(value) and (value is not None or key == "loss_fn"):
            raise InputError(f"{name} returned a {key} that is no function")
    return contract


def _import(name: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            sys.path.insert(0, str(Path.cwd()))
            try:
                return importlib.import_module(name)
            finally:
                sys.path.pop(0)
        return _import_file(Path(name))
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            raise InputError(
                f"{name}: no module of that name; give a .py file, a .toml file, or the dotted "
                "name of an importable module"
            ) from error
        raise InputError(f"{name} cannot be imported: {_reason(error)}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(f"_jaxinf_contract_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # as when the file is run: its neighbours can be imported, and its classes found by name
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _reason(error: Exception) -> str:
    """What went wrong and where, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f" ({Path(last.filename).name}, line {last.lineno})"
    if isinstance(error, SyntaxError):
        where = f" (line {error.lineno})"
    text = str(error.msg if isinstance(error, SyntaxError) else error).splitlines()
    detail = f": {text[0]}" if text else ""
    return f"{type(error).__name__}{detail}{where}; jaxinf --traceback shows it all"
