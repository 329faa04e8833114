"""One federated round over plain function calls: no Flower, no files, one process.

python docs/examples/one_round/one_round.py
"""

import time
from dataclasses import replace
from functools import partial

from slimfleet.client import Device, DeviceLedger, MemoryStore, Workbench
from slimfleet.client.governor import PowerGovernor
from slimfleet.client.meters import NoMeter
from slimfleet.client.tasks import Digits
from slimfleet.compression import Assignment, Budget, DeviceProfile
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.messages import text_of
from slimfleet.coordinator import Coordinator, CoordinatorSettings, WallEnvironment
from slimfleet.coordinator.settings import Budgets, PlannerSettings

PHONE = DeviceProfile(
    name="phone", device_class="phone", ram_bytes=2**30, train_flops_per_s=4e9, idle_w=0.3, train_w=4.5,
    uplink_bytes_per_s=675e3, downlink_bytes_per_s=1.8e6,
    radio_j_per_byte_up=9e-7, radio_j_per_byte_down=4e-7, radio_j_per_burst=0.5,
)  # fmt: skip
BUDGETS = Budgets(
    common=Budget(energy_j=5.0, deadline_s=60.0, uplink_bytes=4_000),
    by_class={"old phone": Budget(energy_j=5.0, deadline_s=60.0, uplink_bytes=600)},
)
SETTINGS = CoordinatorSettings(rounds=1, budget=BUDGETS, planner=PlannerSettings(max_epochs=5.0))


def ledger(profile: DeviceProfile, assignment: Assignment) -> DeviceLedger:
    """The account of a round on this machine; without a meter its joules are estimated from the profile."""
    governor = PowerGovernor(assignment.budget.power_w)
    return DeviceLedger(profile, governor, NoMeter(), time.monotonic, time.sleep)


def main() -> None:
    """Plan a round, let each device do its part, and fold what comes back."""
    task = Digits(partitions=4)
    coordinator = Coordinator(task, SETTINGS, WallEnvironment())
    workbench, store = Workbench(task, coordinator.blueprint, RUNTIMES["torch"]), MemoryStore()

    devices = {}
    for node, device_class in enumerate(["phone", "phone", "phone", "old phone"]):
        profile = replace(PHONE, device_class=device_class)
        devices[node] = Device(node, profile, workbench, store, partial(ledger, profile))
        coordinator.state.registry.register(node, profile, devices[node].registration().examples)

    planned = coordinator.plan(time.time(), most=4)
    for dispatch in planned.dispatches:
        print(
            f"device {dispatch.node}: {dispatch.assignment.plan.reason}; {len(dispatch.payload):,} bytes down"
        )
        payload, report = devices[dispatch.node].do_round(dispatch.assignment, dispatch.payload)
        answer = coordinator.receive(dispatch.plan_id, payload, text_of(report))
        print(
            f"  {answer.verdict}: {len(payload):,} bytes up, {report.spent.energy_j:.2f} J ({report.source})"
        )
    for node, skip in planned.skipped.items():
        print(f"device {node}: skipped, {skip.reason}")

    row = coordinator.step().row
    print(
        f"round {row.round}: {row.completed} updates used, accuracy {row.accuracy:.1%}, {row.energy_j:.2f} J"
    )


if __name__ == "__main__":
    main()
