"""An existing Ray cluster: connected to, found fit for a run, and left as it was."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ray
from ray._private import services
from ray.exceptions import (
    AuthenticationError,
    GetTimeoutError,
    NodeDiedError,
    RayError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from slimfleet.compression import BadInput
from slimfleet.simulations.grids.ray_signals import sigterm_ends, sigterm_waits
from slimfleet.simulations.grids.versions import versions

__all__ = ["existing_ray"]

_CONNECT_S = 5.0
_PROBE_S = 120.0


@contextmanager
def existing_ray(address: str) -> Iterator[None]:
    """A cluster at `HOST:PORT` of its head, or the one of this machine for `auto`, while the block lasts.

    Its authentication is Ray's own: `RAY_AUTH_MODE`, `RAY_AUTH_TOKEN` and `RAY_AUTH_TOKEN_PATH` as its machines have
    them. Nothing of it is started or stopped. SIGTERM ends this process in order, as with `local_ray`.

    Raises BadInput where no cluster answers, it refuses the token, it or a machine has other versions than this
    process, or a machine lacks slimfleet.
    """
    resolved = _resolved(address)
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if there != resolved:
            raise BadInput(f"this process is connected to the Ray at {there} already, not to {resolved}")
        yield
        return
    with sigterm_ends():
        try:
            with sigterm_waits():
                _connect(resolved)
            _inspect()
            yield
        finally:
            ray.shutdown()


def _resolved(address: str) -> str:
    """The address of the cluster's head as Ray knows it."""
    if "://" in address:
        raise BadInput(
            f"Ray address {address}: give HOST:PORT of the cluster's head, and run this on a machine of the cluster; "
            f"Ray Client cannot be used"
        )
    try:
        resolved: str = services.canonicalize_bootstrap_address_or_die(address)
        host, _, port = resolved.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (ValueError, OSError) as error:  # a ConnectionError where `auto` finds none
        said = str(error).split(". Please")[0]
        raise BadInput(
            f"no Ray cluster answers at {address} ({said}): start one with `ray start --head`, "
            f"or give HOST:PORT of its head"
        ) from error
    return resolved


def _connect(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except AuthenticationError as error:
        raise BadInput(
            f"the Ray cluster at {address} refuses this process: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            f"RAY_AUTH_TOKEN_PATH as its machines have them"
        ) from error
    except (RuntimeError, ValueError, ConnectionError, RayError) as error:
        raise BadInput(
            f"the Ray cluster at {address} cannot be used: {' '.join(str(error).split())}"
        ) from error


def _inspect() -> None:
    """Raise BadInput, which names a machine, where one that has processor cores for workers lacks something."""
    probe = ray.remote(num_cpus=0, max_retries=0)(_probe())
    asked = [
        (
            node["NodeManagerAddress"],
            probe.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(versions()),
        )
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    for machine, reference in asked:
        try:
            found = ray.get(reference, timeout=_PROBE_S)
        except (TaskUnschedulableError, NodeDiedError, WorkerCrashedError):
            continue  # it has just left the cluster
        except (GetTimeoutError, RayError) as error:
            said = " ".join(str(error).split())
            raise BadInput(f"machine {machine} of the Ray cluster does not work: {said}") from error
        if found:
            raise BadInput(f"machine {machine} of the Ray cluster {found}")


def _probe() -> Callable[[Mapping[str, str]], str]:
    """A function that says what its machine lacks. It is local, so that it travels without slimfleet."""

    def lacks(driver: Mapping[str, str]) -> str:
        try:
            from slimfleet.simulations.grids.versions import differences
        except ModuleNotFoundError as missing:
            return f"lacks {missing.name}: install the same slimfleet[simulation] on every machine"
        other = differences(driver)
        return other and f"has {other}"

    return lacks
