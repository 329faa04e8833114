"""slimfleet.client: what one device does: train, encode, meter, and stay inside its budget."""

from slimfleet.client.device import Device
from slimfleet.client.guard import BudgetGuard
from slimfleet.client.held import Held, HeldStore
from slimfleet.client.ledger import Balance, DeviceLedger, Ledger
from slimfleet.client.round import run_round
from slimfleet.client.state import ResidualStore
from slimfleet.client.workbench import Workbench

__all__ = [
    "Balance",
    "BudgetGuard",
    "Device",
    "DeviceLedger",
    "Held",
    "HeldStore",
    "Ledger",
    "ResidualStore",
    "Workbench",
    "run_round",
]
