"""What the coordinator knows of the model on a device: a version of the global model, cut to some channels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holding:
    """A version that a device has shown to hold."""

    version: int | None = None
    """The round that published it; None of a newcomer, or where nothing is known."""
    channels: str = ""
    """Packed channel masks in hexadecimal digits."""

    def covers(self, channels: bytes) -> bool:
        """Whether all the channels of packed masks are among those held."""
        return not int.from_bytes(channels) & ~int.from_bytes(bytes.fromhex(self.channels))


NOTHING = Holding()
