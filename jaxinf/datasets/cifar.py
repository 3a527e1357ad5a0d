"""CIFAR-10 and CIFAR-100 in their Python version, read without running what a pickle may ask."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from jaxinf.datasets.arrays import Examples
from jaxinf.errors import InputError

# what a damaged pickle may raise, as the pickle module's documentation warns
_DAMAGED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)
_LABEL_KEYS = ("labels", "fine_labels", "coarse_labels")


def read_cifar_batch(path: str | Path, *, labels: str | None = None) -> Examples:
    """Read one pickled batch of 32x32 colour images.

    Only arrays of numbers, strings, bytes, numbers, lists, tuples and dicts are unpickled:
    a file that asks for anything else is refused, so an untrusted file cannot run code.

    Args:
        path: the batch, such as `cifar-10-batches-py/data_batch_1`.
        labels: which labels to take: `"labels"` (CIFAR-10), `"fine_labels"` or
            `"coarse_labels"` (CIFAR-100). By default the first of these that the file has.

    Returns:
        `{"x": uint8[N, 32, 32, 3], "y": int32[N]}` in the stored order.

    Raises:
        InputError: no such file, no such batch, one that holds code, or missing labels.

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "batch")
        >>> batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [3, 5]}
        >>> _ = file.write_bytes(pickle.dumps(batch))
        >>> read_cifar_batch(file)["x"].shape
        (2, 32, 32, 3)
    """
    content = _read_dict(Path(path))
    data = content.get("data")
    if not (isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == 3072):
        raise InputError(f"{path}: no 'data' of shape [N, 3072] in it, so no batch of CIFAR images")
    if data.dtype != np.uint8:
        raise InputError(f"{path}: its images are {data.dtype}, not uint8")
    keys = _LABEL_KEYS if labels is None else (labels,)
    found = next((content[key] for key in keys if key in content), None)
    if found is None or np.shape(found) != data.shape[:1]:
        raise InputError(
            f"{path}: no {' or '.join(keys)} for its {len(data)} images; it holds "
            f"{', '.join(map(str, content))}"
        )
    # stored as three planes per row
    images = data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return {"x": np.ascontiguousarray(images), "y": np.asarray(found).astype(np.int32)}


def load_cifar10(folder: str | Path) -> tuple[Examples, Examples]:
    """Load CIFAR-10: 50,000 training and 10,000 test images of 10 classes.

    Args:
        folder: `cifar-10-batches-py`, or the folder that holds it.

    Returns:
        `(train, test)`, each `{"x": uint8[N, 32, 32, 3], "y": int32[N]}`, batch after batch.

    Raises:
        InputError: a batch is missing or damaged.

    Example:
        >>> load_cifar10("no/such/folder")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no/such/folder/data_batch_1: no such file
    """
    folder = _inside(folder, "cifar-10-batches-py")
    parts = [read_cifar_batch(folder / f"data_batch_{i}") for i in range(1, 6)]
    train = {key: np.concatenate([part[key] for part in parts]) for key in ("x", "y")}
    return train, read_cifar_batch(folder / "test_batch")


def load_cifar100(folder: str | Path, *, coarse: bool = False) -> tuple[Examples, Examples]:
    """Load CIFAR-100: 50,000 training and 10,000 test images.

    Args:
        folder: `cifar-100-python`, or the folder that holds it.
        coarse: take the 20 coarse labels in place of the 100 fine ones.

    Returns:
        `(train, test)`, each `{"x": uint8[N, 32, 32, 3], "y": int32[N]}`.

    Raises:
        InputError: a batch is missing or damaged.

    Example:
        >>> load_cifar100("no/such/folder")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no/such/folder/train: no such file
    """
    folder = _inside(folder, "cifar-100-python")
    labels = "coarse_labels" if coarse else "fine_labels"
    train, test = (read_cifar_batch(folder / name, labels=labels) for name in ("train", "test"))
    return train, test


def cifar_classes(folder: str | Path, *, coarse: bool = False) -> tuple[str, ...]:
    """Read the class names of CIFAR-10 or CIFAR-100, in the order of the labels.

    Args:
        folder: `cifar-10-batches-py` or `cifar-100-python`, or the folder that holds one.
        coarse: the names of the 20 coarse classes of CIFAR-100.

    Returns:
        One name per class.

    Raises:
        InputError: no file of names, or a damaged one.

    Example:
        >>> cifar_classes("no/such/folder")
        Traceback (most recent call last):
        ...
        jaxinf.errors.InputError: no/such/folder: neither batches.meta nor meta in it
    """
    for inner, name, key in (
        ("cifar-10-batches-py", "batches.meta", "label_names"),
        ("cifar-100-python", "meta", "coarse_label_names" if coarse else "fine_label_names"),
    ):
        path = _inside(folder, inner) / name
        if path.is_file():
            names = _read_dict(path).get(key)
            if not isinstance(names, list):
                raise InputError(f"{path}: no {key} in it")
            return tuple(_text(name) for name in names)
    raise InputError(f"{folder}: neither batches.meta nor meta in it")


def _inside(folder: str | Path, name: str) -> Path:
    folder = Path(folder)
    return folder / name if (folder / name).is_dir() else folder


def _read_dict(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = _DataUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except _DAMAGED as error:
        raise InputError(f"{path}: not a CIFAR file that can be read ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of arrays")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class _DataUnpickler(pickle.Unpickler):
    """Unpickles arrays of numbers and Python's own containers, and refuses everything else.

    No real class or function is handed out, only new closures that build arrays: a pickle can
    therefore neither call nor alter anything that outlives it.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name.startswith("numpy._core."):
            module_name = module_name.replace("._core.", ".core.", 1)
        match module_name, global_name:
            case "numpy", "ndarray":
                return "ndarray"  # only ever an argument of _reconstruct
            case "numpy", "dtype":
                # copied, for a pickle goes on to set the byte order of what it gets
                return lambda name, align=False, copy=True: _number_dtype(name)
            case "numpy.core.multiarray", "_reconstruct":
                return lambda cls, shape, kind: np.empty(0, np.uint8)
            case "numpy.core.multiarray", "scalar":
                return lambda dtype, data: np.frombuffer(data, dtype, 1)[0]
            case "numpy.core.numeric", "_frombuffer":
                return lambda data, dtype, shape, order: np.frombuffer(data, dtype).reshape(
                    shape, order=order
                )
            case "_codecs", "encode":
                return lambda text, encoding: text.encode("latin1")  # bytes before protocol 3
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which is no data")


def _number_dtype(name: str | bytes) -> np.dtype:
    # the third argument copies: numpy's own dtype objects are shared by the whole process
    dtype = np.dtype(_text(name), False, True)
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it holds an array of {dtype}, not of numbers")
    return dtype
