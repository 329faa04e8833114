"""slimfleet.client: what one device does: train, encode, meter, and stay inside its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimfleet.compression.lazy import lazy_exports

if TYPE_CHECKING:
    from slimfleet.client.app import deployed_client_app
    from slimfleet.client.device import Device, Participant
    from slimfleet.client.guard import BudgetGuard
    from slimfleet.client.ledger import Balance, DeviceLedger, Ledger
    from slimfleet.client.round import run_round
    from slimfleet.client.state import DeviceState, Held, Residual
    from slimfleet.client.store import DeviceStore, FolderStore, MemoryStore
    from slimfleet.client.workbench import Workbench
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Balance": "slimfleet.client.ledger",
            "BudgetGuard": "slimfleet.client.guard",
            "Device": "slimfleet.client.device",
            "DeviceLedger": "slimfleet.client.ledger",
            "DeviceState": "slimfleet.client.state",
            "DeviceStore": "slimfleet.client.store",
            "FolderStore": "slimfleet.client.store",
            "Held": "slimfleet.client.state",
            "Ledger": "slimfleet.client.ledger",
            "MemoryStore": "slimfleet.client.store",
            "Participant": "slimfleet.client.device",
            "Residual": "slimfleet.client.state",
            "Workbench": "slimfleet.client.workbench",
            "deployed_client_app": "slimfleet.client.app",
            "run_round": "slimfleet.client.round",
        },
    )

__all__ = [
    "Balance",
    "BudgetGuard",
    "Device",
    "DeviceLedger",
    "DeviceState",
    "DeviceStore",
    "FolderStore",
    "Held",
    "Ledger",
    "MemoryStore",
    "Participant",
    "Residual",
    "Workbench",
    "deployed_client_app",
    "run_round",
]
