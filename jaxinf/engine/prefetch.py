"""Load ahead: a background thread reads and transfers the next blocks while the device works."""

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax

from jaxinf.errors import x64_enabled

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], size: int = 2) -> Iterator[T]:
    """Iterate in order, with up to `size` items made ready by a background thread.

    An exception in the thread is raised here, at the item where it happened. Closing the
    generator stops the thread. It works in float64 where the caller does.

    Example:
        >>> list(prefetch(range(3)))
        [0, 1, 2]
    """
    ready: queue.Queue = queue.Queue(maxsize=size)
    stop = threading.Event()
    # a thread does not inherit `with jax.enable_x64(True)`: it would round what it transfers
    wide = x64_enabled()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            with _x64(wide):
                for item in items:
                    if not put((item, None)):
                        return
            put((_END, None))
        except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread
            put((_END, error))

    thread = threading.Thread(target=work, name="jaxinf-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _x64(wide: bool) -> AbstractContextManager[Any]:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(wide)
    from jax import experimental

    return experimental.enable_x64(wide)  # pyright: ignore[reportAttributeAccessIssue]
