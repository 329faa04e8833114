"""Meters: joules and peak memory of a round, measured where there is a sensor, never guessed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from slimfleet.client.meters.charge_counter import ChargeCounterMeter
from slimfleet.client.meters.hwmon import find_rails
from slimfleet.client.meters.memory import peak_memory_bytes, reset_peak_memory
from slimfleet.client.meters.pmic import find_pmic
from slimfleet.client.meters.power_supply import find_gauges
from slimfleet.client.meters.protocol import Meter, NoMeter, Reading, net_of_idle
from slimfleet.client.meters.rapl import find_domains
from slimfleet.client.meters.sampled import SampledMeter, Sensor
from slimfleet.client.meters.termux import find_termux_battery
from slimfleet.compression.errors import BadInput

__all__ = [
    "METERS",
    "ChargeCounterMeter",
    "Meter",
    "NoMeter",
    "Reading",
    "SampledMeter",
    "Sensor",
    "build_meter",
    "net_of_idle",
    "peak_memory_bytes",
    "read_all",
    "reset_peak_memory",
]


METERS: Mapping[str, Callable[[], Meter]] = MappingProxyType(
    {
        "none": NoMeter,
        "hwmon": partial(SampledMeter, find_rails),
        "pmic": partial(SampledMeter, find_pmic),
        "power-supply": partial(SampledMeter, find_gauges),
        "charge-counter": ChargeCounterMeter,
        # The app takes up to a second to answer.
        "termux": partial(SampledMeter, find_termux_battery, rate_hz=1.0),
        "rapl": partial(SampledMeter, find_domains),
    }
)


def build_meter(name: str) -> Meter:
    """The meter called `name`, on this machine's own sensors. Raises BadInput naming the meters there are."""
    if name not in METERS:
        raise BadInput(f"no meter is called {name!r}; there are {', '.join(METERS)}")
    return METERS[name]()


def read_all(seconds: float, sleep: Callable[[float], None] = time.sleep) -> dict[str, Reading | None]:
    """What every meter with a sensor reads over the next `seconds`, all at once."""
    meters = {name: build_meter(name) for name in METERS if name != "none"}
    for meter in meters.values():
        meter.start()
    sleep(seconds)
    return {name: meter.stop() for name, meter in meters.items()}
