"""What every benchmark shares: the machine, workers with their peak memory, JSON results.

The parent process imports neither jax nor torch: each contender lives in a process of its own,
so that threads, allocators and peak memory are its own too.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "scikit-learn")
_REPLY = "\x1eREPLY "


def machine() -> dict[str, Any]:
    """Platform, processor, cores that this process may use, and memory in GiB."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": cores(),
        "memory_gib": round(pages / 2**30, 1),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_result(path: Path, settings: dict[str, Any], results: Any) -> None:
    """Write one benchmark's JSON: when, where, with what, under which settings, what came out."""
    document = {
        "benchmark": path.stem,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "settings": settings,
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {path}")


def read_results(path: Path) -> list[dict[str, Any]]:
    """The rows of a result file; none where there is no file yet."""
    return json.loads(path.read_text())["results"] if path.exists() else []


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a result file; none where there is no file yet."""
    return json.loads(path.read_text())["settings"] if path.exists() else {}


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Median, least and largest of repeated measurements, with all of them."""
    raw = list(values)
    return {"median": statistics.median(raw), "min": min(raw), "max": max(raw), "raw": raw}


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    # Linux hands ru_maxrss down from the parent; the high-water mark in /proc is this program's
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Worker:
    """A process that answers requests until it is closed; it idles while another one runs.

    Keeping every contender alive lets repetitions alternate (A B A B ...) without starting and
    compiling each time.
    """

    def __init__(
        self,
        module: str,
        config: dict[str, Any],
        env: dict[str, str] | None = None,
        python: str = sys.executable,
    ):
        """Start `python -m module --worker CONFIG`, with another interpreter where one is given."""
        command = [python, "-m", module, "--worker", json.dumps(config)]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path} | (env or {}),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for the reply.

        Raises:
            RuntimeError: the worker failed; its own message is on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its exit code is read below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(_REPLY):
                return json.loads(line[len(_REPLY) :])
        raise RuntimeError(f"a worker ended with exit code {self._process.wait()} at {request}")

    def __enter__(self) -> Self:
        """The worker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its input, which ends it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Be a worker: answer each request on stdin, adding the peak memory so far."""
    for line in sys.stdin:
        reply = answer(**json.loads(line))
        reply["peak_bytes"] = max(peak_memory(), reply.get("peak_bytes", 0))
        print(_REPLY + json.dumps(reply), flush=True)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
