"""A planner that always asks for the same number of steps, on the widest model that leaves a quarter of the budget."""

from slimfleet.compression import Budget, DeviceProfile, Plan, Skip
from slimfleet.compression.cost import CostModel
from slimfleet.coordinator import PlannerSettings
from slimfleet.coordinator.planning import History

STEPS, SPARE, NMSE = 8, 0.25, 0.1


class FixedSteps:
    """Made once, with `[planner]` of the scenario."""

    def __init__(self, settings: PlannerSettings) -> None:
        self.widths = sorted(settings.widths, reverse=True)
        self.batch_size = settings.batch_sizes[0]

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        """The widest model that fits, or the limit that even the narrowest breaks."""
        broken = None
        for width in self.widths:
            plan = Plan(
                width=width,
                local_steps=STEPS,
                batch_size=self.batch_size,
                nmse=NMSE,
                reason=f"careful: {STEPS} steps at width {width:g}",
            )
            work = cost_model.works[width]
            uplink_bytes = cost_model.sizes.predict(work.parameters, NMSE)
            downlink_bytes = history.sizes.exact(width)
            cost = cost_model.predict(profile, plan, work, uplink_bytes, downlink_bytes, budget.power_w)
            broken = _broken(budget, {"deadline_s": cost.time_s, "energy_j": cost.energy_j})
            if broken is None:
                return plan
        return broken or Skip(constraint="profile", needed=0.0, limit=0.0)


def _broken(budget: Budget, needs: dict[str, float]) -> Skip | None:
    for name, need in needs.items():
        limit = getattr(budget, name)
        if limit is not None and need > (1 - SPARE) * limit:
            return Skip(constraint=name, needed=need / (1 - SPARE), limit=limit)
    return None
