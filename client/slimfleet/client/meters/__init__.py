"""Meters: joules and peak memory of a round, measured where there is a sensor, never guessed."""

from slimfleet.client.meters.charge_counter import ChargeCounterMeter
from slimfleet.client.meters.memory import peak_memory_bytes, reset_peak_memory
from slimfleet.client.meters.power_supply import PowerSupplyMeter
from slimfleet.client.meters.protocol import Meter, NoMeter, Reading, net_of_idle
from slimfleet.client.meters.table import METERS, build_meter, read_all

__all__ = [
    "METERS",
    "ChargeCounterMeter",
    "Meter",
    "NoMeter",
    "PowerSupplyMeter",
    "Reading",
    "build_meter",
    "net_of_idle",
    "peak_memory_bytes",
    "read_all",
    "reset_peak_memory",
]
