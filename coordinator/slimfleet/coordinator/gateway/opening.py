"""Opening: a gateway for as long as a run lasts, told of in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from slimfleet.coordinator.gateway.gateway import Gateway
from slimfleet.coordinator.gateway.settings import GatewaySettings
from slimfleet.coordinator.observing.events import Observer
from slimfleet.coordinator.pki import PkiFolder

__all__ = ["opened"]

log = logging.getLogger("slimfleet")


@contextmanager
def opened(settings: GatewaySettings, beside: Path, observers: Sequence[Observer] = ()) -> Iterator[Gateway]:
    """A gateway at work, which tells `observers` of what it refuses; `beside` is the folder that `settings.pki` starts
    from.

    Raises BadInput where the keys lack something, or the address cannot be listened on.
    """
    with Gateway(settings, PkiFolder(beside / settings.pki)) as gateway:
        gateway.refusals.tell(observers)
        log.info("devices connect to %s:%d", settings.host, gateway.port)
        try:
            yield gateway
        finally:
            if refused := gateway.refusals.counts():
                log.info("refused: %s", ", ".join(f"{n} {reason}" for reason, n in sorted(refused.items())))
