"""A cursor over received bytes that cannot run past their end."""

from __future__ import annotations

import struct

from slimfleet.compression.errors import PayloadError


class Reader:
    """Takes bytes from the front; every take is checked, none copies."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes; raises PayloadError("counts") when there are fewer."""
        end = self._at + size
        if end > len(self._data):
            raise PayloadError("counts", f"{size} bytes needed where {len(self._data) - self._at} are left")
        view = self._data[self._at : end]
        self._at = end
        return view

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def unpack(self, layout: struct.Struct) -> tuple[int | float, ...]:
        """The next fields of a fixed layout."""
        return layout.unpack(self.take(layout.size))

    def rest(self) -> memoryview:
        """Everything that is left."""
        return self.take(len(self._data) - self._at)

    def finish(self) -> None:
        """Raise PayloadError("counts") unless everything was taken."""
        if self._at != len(self._data):
            raise PayloadError("counts", f"{len(self._data) - self._at} bytes are left over")
