"""Devices and versions: set up before anything runs, and written down with every result."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxinf import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "ott-jax", "numpy")


def use_all_cores() -> None:
    """Make one jax CPU device per core of this process, so that a mesh uses all of them.

    Nothing is changed when the user chose otherwise (`XLA_FLAGS` or `JAX_NUM_CPU_DEVICES`, or
    jax's own configuration), or when jax has already started its devices. Accelerators are not
    affected: where there are any, the mesh is made of them.
    """
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in (
        os.environ.get("XLA_FLAGS", "")
    )
    if chosen or getattr(jax.config, "jax_num_cpu_devices", 0) > 0:
        return
    try:
        jax.config.update("jax_num_cpu_devices", num_cores())
    except RuntimeError:
        return  # jax is already running, within a larger program: leave its devices alone


def num_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, as installed.

    Example:
        >>> list(versions())[:3]
        ['jaxinf', 'python', 'jax']
    """
    found = {"jaxinf": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe_devices(devices: Sequence[Any]) -> str:
    """Devices in words.

    Example:
        >>> describe_devices(jax.local_devices()[:1])
        '1 × cpu'
    """
    kinds: dict[str, int] = {}
    for device in devices:
        kind = device.device_kind
        name = kind if kind == device.platform else f"{device.platform} ({kind})"
        kinds[name] = kinds.get(name, 0) + 1
    return ", ".join(f"{count} × {name}" for name, count in kinds.items())


def provenance(settings: Mapping[str, object]) -> dict[str, str]:
    """What made the numbers: settings, versions, devices."""
    made_by = {name: str(value) for name, value in settings.items()}
    listed = ", ".join(f"{name} {version}" for name, version in versions().items())
    return made_by | {"devices": describe_devices(jax.local_devices()), "versions": listed}
