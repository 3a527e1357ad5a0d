"""Load ahead: a background thread reads and transfers the next blocks while the device works."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], size: int = 2) -> Iterator[T]:
    """Iterate in order, with up to `size` items made ready by a background thread.

    An exception in the thread is raised here, at the item where it happened. Closing the
    generator stops the thread.

    Example:
        >>> list(prefetch(range(3)))
        [0, 1, 2]
    """
    ready: queue.Queue = queue.Queue(maxsize=size)
    stop = threading.Event()

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
