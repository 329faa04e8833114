"""Reception: every call, whatever transport brings it, is admitted, served and, where it is not, counted."""

from __future__ import annotations

import logging
from collections.abc import Callable

from slimfleet.compression.device_api import METHODS
from slimfleet.coordinator.gateway.admission import Admission
from slimfleet.coordinator.gateway.handler import Handler, Wire
from slimfleet.coordinator.gateway.refusal import Refusals, Refused

__all__ = ["Reception"]

LONGEST_NAME = 80
"""Characters of what a caller takes for a method, in the answer."""

log = logging.getLogger(__name__)


class Reception:
    """Serves calls of known devices. `greet` is told the port from which the door passes on a call of one."""

    def __init__(
        self, handler: Handler, admission: Admission, refusals: Refusals, greet: Callable[[int], None]
    ) -> None:
        self._handler, self._admission, self._refusals, self._greet = handler, admission, refusals, greet

    async def serve(self, name: str, certificate: bytes | None, caller: int, wire: Wire) -> None:
        """Serve a call over the connection that the door makes from port `caller`. Raises Refused, once counted."""
        try:
            identity = self._admission.admit(certificate)
            self._greet(caller)
            if name not in METHODS:
                raise Refused("method", f"no method {name[:LONGEST_NAME]!r}: docs/device-api.md has them")
            await self._handler.serve(name, identity.node, wire)
        except Refused as refused:
            raise self.counted(refused) from None
        except OSError as error:
            raise Refused("slow", "the connection was lost") from error
        except Exception as error:
            # A defect of ours ends this call, not the service.
            log.exception("%s could not be served", name)
            raise self.counted(Refused("error", "the gateway failed")) from error

    def counted(self, refused: Refused) -> Refused:
        """The refusal, once it is counted: of a call, or of what is none."""
        self._refusals.count(refused.reason)
        return refused
