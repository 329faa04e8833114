"""The meters that slimfleet knows by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from slimfleet.client.meters.charge_counter import ChargeCounterMeter
from slimfleet.client.meters.power_supply import PowerSupplyMeter
from slimfleet.client.meters.protocol import Meter, NoMeter
from slimfleet.client.meters.simulated import SimulatedMeter
from slimfleet.compression.errors import BadInput

METERS: Mapping[str, Callable[[], Meter]] = MappingProxyType(
    {
        "none": NoMeter,
        "simulated": SimulatedMeter,
        "power-supply": PowerSupplyMeter,
        "charge-counter": ChargeCounterMeter,
    }
)


def build_meter(name: str) -> Meter:
    """The meter called `name`, on this machine's own sensors. Raises BadInput naming the meters there are."""
    if name not in METERS:
        raise BadInput(f"no meter is called {name!r}; there are {', '.join(METERS)}")
    return METERS[name]()
