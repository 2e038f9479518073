"""Connect to Ray, on this machine or on a cluster; needs the extra ``ray``."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Generator
from typing import Any

from .loader import available_cpus

_PATIENCE = 10.0
"""Seconds to wait for an address to answer."""


@contextlib.contextmanager
def ray_cluster(address: str = "auto") -> Generator[Any]:
    """Connect to a Ray cluster for a block, unless this process is connected already; yields the module ``ray``.

    Args:
        address: as ``ray.init`` takes it, such as ``10.0.0.1:6379`` or ``ray://head:10001``. ``auto`` is the cluster
            that ``RAY_ADDRESS`` names or that ``ray start`` began on this machine, or else, as for ``local``, one for
            this block, with the cores that this process may use.

    Raises:
        ValueError: in one line, if Ray is not installed or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    try:
        import ray
    except ImportError as error:
        raise ValueError("Ray is not installed; run `pip install 'vqmem[ray]'`, or use executor=in_process") from error
    if ray.is_initialized():
        yield ray
        return
    _refuse_unreachable(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    local: dict[str, Any] = {"num_cpus": available_cpus(), "include_dashboard": False}
    try:
        try:
            ray.init(address, **quiet, **(local if address == "local" else {}))
        except ConnectionError:
            if address != "auto":
                raise
            ray.init("local", **quiet, **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def picklable(error: Exception) -> Exception:
    """An error that says the same in another process; the arguments of some exceptions do not make them again."""
    if isinstance(error, OSError):
        return error
    if isinstance(error, ValueError):
        return ValueError(str(error))
    made = RuntimeError(f"{type(error).__name__}: {error}")
    made.add_note("".join(traceback.format_exception(error)))
    return made


def _refuse_unreachable(address: str) -> None:
    """Raise `ValueError` if nothing listens at a ``host:port``, for which Ray itself would wait for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    instead = "give the address of one, or local for one of this command"
    return ValueError(f"no Ray cluster at address={address!r} ({reason}); {instead}")
