"""Text of a state: `state.json`, of which only what has changed since the last checkpoint is made anew.

In a round few of a fleet's devices change, and of the rows one is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter
from pydantic_core import to_json

from slimfleet.compression.cost import UpdateSizeModel
from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.learning.best import Best
from slimfleet.coordinator.learning.calibration import Calibration, DeviceCalibration
from slimfleet.coordinator.learning.row import RoundRow, Totals
from slimfleet.coordinator.record import DeviceRecord
from slimfleet.coordinator.sending.in_flight import kept_dispatches

if TYPE_CHECKING:
    from slimfleet.coordinator.state import State

LASTING: Mapping[str, TypeAdapter[Any]] = MappingProxyType(
    {
        "rows": TypeAdapter(list[RoundRow]),
        "calibration": TypeAdapter(Calibration),
        "sizes": TypeAdapter(UpdateSizeModel),
        "totals": TypeAdapter(Totals),
        "best": TypeAdapter(Best | None),
    }
)
"""What of a `State` lasts and is no array; its types alone say how it is written and read."""

RECORDS = TypeAdapter(list[DeviceRecord])

OTHERS = ("registry", "environment", "saved_s", "in_flight")
"""Further keys of `state.json`."""

_CONSTANTS = ConfigDict(ser_json_inf_nan="constants")
_ROW = TypeAdapter(tuple[RoundRow], config=_CONSTANTS)
_DEVICE = TypeAdapter(tuple[DeviceCalibration], config=_CONSTANTS)
_RECORD = TypeAdapter(tuple[DeviceRecord], config=_CONSTANTS)


class StateText:
    """Writes a state as JSON, time and again."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._devices: dict[str, tuple[DeviceCalibration, bytes]] = {}
        """What is known of a device, which is replaced and never changed, and the entry that it makes."""
        self._records: dict[int, bytes] = {}

    def of(self, state: State, environment: Environment, identity: Mapping[str, Any]) -> bytes:
        """The whole text, with the entries of `identity`."""
        parts = {
            "rows": self._list_of_rows(state.rows),
            "calibration": self._calibration(state.calibration),
            **{
                name: _text(LASTING[name].dump_python(getattr(state, name)))
                for name in ("sizes", "totals", "best")
            },
            **{name: _text(value) for name, value in identity.items()},
            "registry": self._registry(state.registry.changed()),
            "environment": _text(environment.to_json()),
            "saved_s": _text(environment.now_s()),
            "in_flight": _text(kept_dispatches(state.in_flight.values())),
        }
        return _table(_entry(name, text) for name, text in parts.items())

    def _list_of_rows(self, rows: list[RoundRow]) -> bytes:
        self._rows += [_ROW.dump_json((row,))[1:-1] for row in rows[len(self._rows) :]]
        return _list(self._rows)

    def _calibration(self, calibration: Calibration) -> bytes:
        for device, known in calibration.devices.items():
            if device not in self._devices or self._devices[device][0] is not known:
                self._devices[device] = known, _entry(device, _DEVICE.dump_json((known,))[1:-1])
        rest = LASTING["calibration"].dump_python(calibration, exclude={"devices"})
        devices = _table(self._devices[device][1] for device in calibration.devices)
        return _table(
            [_entry("devices", devices), *(_entry(name, _text(value)) for name, value in rest.items())]
        )

    def _registry(self, changed: Iterable[DeviceRecord]) -> bytes:
        for record in changed:
            self._records[record.node] = _RECORD.dump_json((record,), exclude_defaults=True)[1:-1]
        return _list(self._records[node] for node in sorted(self._records))


def _text(value: Any) -> bytes:
    return to_json(value, inf_nan_mode="constants")


def _list(texts: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(texts) + b"]"


def _table(entries: Iterable[bytes]) -> bytes:
    return b"{" + b",".join(entries) + b"}"


def _entry(name: str, text: bytes) -> bytes:
    return _text(name) + b":" + text
