"""slimfleet.client: what one device does: train, encode, meter, and stay inside its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimfleet.compression.lazy import lazy_exports

if TYPE_CHECKING:
    from slimfleet.client.device import Device
    from slimfleet.client.guard import BudgetGuard
    from slimfleet.client.held import Held, HeldStore
    from slimfleet.client.ledger import Balance, DeviceLedger, Ledger
    from slimfleet.client.round import run_round
    from slimfleet.client.state import ResidualStore
    from slimfleet.client.workbench import Workbench
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Balance": "slimfleet.client.ledger",
            "BudgetGuard": "slimfleet.client.guard",
            "Device": "slimfleet.client.device",
            "DeviceLedger": "slimfleet.client.ledger",
            "Held": "slimfleet.client.held",
            "HeldStore": "slimfleet.client.held",
            "Ledger": "slimfleet.client.ledger",
            "ResidualStore": "slimfleet.client.state",
            "Workbench": "slimfleet.client.workbench",
            "run_round": "slimfleet.client.round",
        },
    )

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
