from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_planner import ReferencePlanner
from torch import nn

from slimfleet.compression.cost import RUNTIMES, CostModel, Work, measure_work
from slimfleet.compression.types import Budget, Cost, DeviceProfile, Plan, Skip
from slimfleet.coordinator.learning.calibration import Correction, Factor
from slimfleet.coordinator.planning import (
    PLANNERS,
    EnumeratingPlanner,
    FixedPlanner,
    History,
    Request,
    Sizes,
    enumerating,
)
from slimfleet.coordinator.settings import PlannerSettings


def work_at(width: float) -> Work:
    first, second, hidden = int(16 * width), int(32 * width), int(56 * width)
    model = nn.Sequential(
        *(nn.Conv2d(1, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(second * 49, hidden), nn.ReLU(), nn.Linear(hidden, 10)),
    )
    return measure_work(model, (torch.zeros(1, 1, 28, 28),), nn.functional.cross_entropy)


SETTINGS = PlannerSettings()
MODEL = CostModel(RUNTIMES["lite"], {width: work_at(width) for width in SETTINGS.widths})
PLANNER = EnumeratingPlanner(SETTINGS)
PARAMETER_BYTES = {width: work.parameter_bytes for width, work in MODEL.works.items()}


NOMINAL = Correction()


def history_of(examples: int = 600, correction: Correction = NOMINAL, **sizes: int) -> History:
    """What is known of a device, with models to be sent as large as in float32, or as `sizes` by width says."""
    exact = PARAMETER_BYTES | {float(width): size for width, size in sizes.items()}
    return History(
        examples=examples, correction=correction, sizes=Sizes(exact=exact.__getitem__, least=lambda width: 45)
    )


HISTORY = history_of()
PHONE = DeviceProfile(
    name="phone",
    device_class="phone-mid",
    ram_bytes=4 * 2**30,
    train_flops_per_s=4e9,
    idle_w=0.3,
    train_w=4.5,
    uplink_bytes_per_s=675_000,
    downlink_bytes_per_s=1_790_000,
    radio_j_per_byte_up=9e-7,
    radio_j_per_byte_down=4.3e-7,
    radio_j_per_burst=0.5,
    battery_j=55_440,
)


def predicted(plan: Plan, history: History = HISTORY, power_w: float | None = None) -> Cost:
    """The plan's cost, worked out apart from the planner's columns."""
    work = MODEL.works[plan.width]
    up = MODEL.sizes.predict(work.parameters, plan.nmse)
    return MODEL.predict(PHONE, plan, work, up, history.sizes.exact(plan.width), power_w)


def of_budget(name: str) -> Callable[[Cost], float]:
    field = {"deadline_s": "time_s"}.get(name, name)
    return lambda cost: float(getattr(cost, field))


def planned(budget: Budget, history: History = HISTORY) -> Plan:
    plan = PLANNER.plan(PHONE, budget, MODEL, history)
    assert isinstance(plan, Plan)
    return plan


LIMITS = ("energy_j", "memory_bytes", "deadline_s", "uplink_bytes", "downlink_bytes")
budgets = st.builds(
    Budget,
    energy_j=st.none() | st.floats(0.3, 30),
    power_w=st.none() | st.floats(0.2, 8),
    memory_bytes=st.none() | st.integers(40_000_000, 120_000_000),
    deadline_s=st.none() | st.floats(0.4, 20),
    uplink_bytes=st.none() | st.integers(100, 500_000),
    downlink_bytes=st.none() | st.integers(10_000, 500_000),
)
factors = st.builds(Factor, st.floats(0.3, 3), st.floats(0, 0.5))
sizes = st.dictionaries(st.sampled_from(SETTINGS.widths).map(str), st.integers(1_000, 500_000))
histories = st.builds(
    lambda examples, correction, sizes: history_of(examples, correction, **sizes),
    st.integers(1, 5000),
    st.builds(Correction, factors, factors, factors),
    sizes,
)


@given(budgets, histories)
def test_a_plan_keeps_every_limit_under_the_corrected_cost_model(budget: Budget, history: History) -> None:
    plan = PLANNER.plan(PHONE, budget, MODEL, history)
    if isinstance(plan, Skip):
        assert plan.needed > plan.limit
        return
    cost, correction = predicted(plan, history, budget.power_w), history.correction
    scale = {"energy_j": correction.energy, "deadline_s": correction.time, "memory_bytes": correction.memory}
    for name in LIMITS:
        factor = scale.get(name, Factor())
        margin = max(1.15, float(np.exp(2 * factor.spread))) if name in scale else 1.0
        limit = getattr(budget, name)
        certain = cost.radio_j if name == "energy_j" else 0.0
        needed = certain + (of_budget(name)(cost) - certain) * factor.value * margin
        rounding = 1 if name.endswith("bytes") else 0  # a cost rounds bytes up to whole ones
        assert limit is None or needed <= limit * 1.000001 + rounding * factor.value * margin
    most = -(-history.examples // plan.batch_size)
    assert 1 <= plan.local_steps <= most


@given(budgets, st.sampled_from(LIMITS), st.floats(0.05, 0.99))
def test_tightening_a_limit_never_raises_its_cost(budget: Budget, name: str, share: float) -> None:
    before = PLANNER.plan(PHONE, budget, MODEL, HISTORY)
    if isinstance(before, Skip):
        return
    spent = of_budget(name)
    now = spent(predicted(before, power_w=budget.power_w))
    limit = getattr(budget, name)
    tight = replace(budget, **{name: share * (now if limit is None else limit)})
    after = PLANNER.plan(PHONE, tight, MODEL, HISTORY)
    if isinstance(after, Plan):
        assert spent(predicted(after, power_w=budget.power_w)) <= now
    else:
        assert after.constraint == name


@pytest.mark.parametrize("name", LIMITS)
def test_an_impossible_limit_is_named(name: str) -> None:
    skip = PLANNER.plan(PHONE, Budget(**{name: 1e-3}), MODEL, HISTORY)  # type: ignore[arg-type]
    assert isinstance(skip, Skip)
    assert skip.constraint == name
    assert skip.limit == 1e-3
    least = Plan(width=0.25, local_steps=1, batch_size=8, nmse=0.95)
    assert skip.needed >= of_budget(name)(predicted(least)) - 1
    # What it says is needed is enough.
    enough = PLANNER.plan(PHONE, Budget(**{name: skip.needed * 1.001}), MODEL, HISTORY)  # type: ignore[arg-type]
    assert isinstance(enough, Plan)


@pytest.mark.parametrize("left", [0.0, -5.0])
def test_a_battery_below_its_floor_fits_no_plan(left: float) -> None:
    skip = PLANNER.plan(PHONE, Budget(energy_j=left, deadline_s=60.0), MODEL, HISTORY)
    assert isinstance(skip, Skip)
    assert (skip.constraint, skip.limit) == ("energy_j", left)
    assert 0.5 < skip.needed < 1.0  # the smallest plan: the radio's burst and little more


@given(budgets)
def test_a_device_is_skipped_only_when_the_least_plan_does_not_fit(budget: Budget) -> None:
    if isinstance(PLANNER.plan(PHONE, budget, MODEL, HISTORY), Plan):
        return
    least = predicted(
        Plan(width=0.25, local_steps=1, batch_size=8, nmse=max(SETTINGS.nmse)), power_w=budget.power_w
    )
    assert any(
        1.15 * of_budget(name)(least) > limit
        for name in LIMITS
        if (limit := getattr(budget, name)) is not None
    )


def test_no_power_at_all_is_named() -> None:
    skip = PLANNER.plan(PHONE, Budget(power_w=0.0), MODEL, HISTORY)
    assert isinstance(skip, Skip)
    assert skip.constraint == "power_w"


def test_a_quarter_of_the_memory_narrows_the_model() -> None:
    planner = EnumeratingPlanner(
        PlannerSettings(batch_sizes=(32, 16), energy_exponent=0.0, uplink_exponent=0.0)
    )
    roomy = planner.plan(PHONE, Budget(memory_bytes=4 * 54_000_000), MODEL, HISTORY)
    quarter = planner.plan(PHONE, Budget(memory_bytes=54_000_000), MODEL, HISTORY)
    assert isinstance(roomy, Plan)
    assert isinstance(quarter, Plan)
    assert roomy.width == 1.0
    assert quarter.width < 1.0
    assert "memory" in quarter.reason
    assert quarter.reason.endswith("binds")


def test_each_limit_moves_what_it_should() -> None:
    free = planned(Budget())
    few_bytes = planned(Budget(uplink_bytes=500))
    little_energy = planned(Budget(energy_j=0.8))
    assert few_bytes.width < free.width or few_bytes.nmse > free.nmse
    assert predicted(little_energy).energy_j < 0.8 < predicted(free).energy_j
    # Narrower costs less accuracy than fewer steps (section on widths in docs/cost-model.md).
    assert little_energy.width < 1.0


def test_the_reason_names_the_limit_that_binds() -> None:
    assert planned(Budget()).reason.endswith("no limit set")
    assert "no limit binds" in planned(Budget(energy_j=1e6, deadline_s=1e5)).reason
    assert "uplink" in planned(Budget(uplink_bytes=400, deadline_s=1e5)).reason


def test_a_slow_device_is_planned_as_slow() -> None:
    slow = replace(HISTORY, correction=Correction(time=Factor(4.0, 0.0)))
    budget = Budget(deadline_s=3.0)
    assert (
        predicted(planned(budget, slow)).time_s * 4 * 1.15
        <= 3.0
        < predicted(planned(budget)).time_s * 4 * 1.15
    )


def test_ties_go_to_the_first_candidate() -> None:
    twice = EnumeratingPlanner(replace(SETTINGS, local_steps=(4096, 2048), batch_sizes=(32,)))
    # Both are cut to one epoch.
    assert twice.plan(PHONE, Budget(), MODEL, HISTORY) == replace(
        planned(Budget()), local_steps=19, batch_size=32
    )


def test_bfloat16_where_the_device_says_so() -> None:
    plan = PLANNER.plan(replace(PHONE, bfloat16=True), Budget(), MODEL, HISTORY)
    assert isinstance(plan, Plan)
    assert plan.precision == "bfloat16"


@given(budgets, histories)
def test_sizes_are_asked_for_only_where_they_decide(budget: Budget, history: History) -> None:
    """Plan, skip and reason are those of a planner that knows every size beforehand."""
    asked: list[float] = []

    def exact(width: float) -> int:
        asked.append(width)
        return history.sizes.exact(width)

    known = replace(history, sizes=Sizes(exact=history.sizes.exact, least=history.sizes.exact))
    lazy = replace(history, sizes=Sizes(exact=exact, least=history.sizes.least))
    assert PLANNER.plan(PHONE, budget, MODEL, lazy) == PLANNER.plan(PHONE, budget, MODEL, known)
    assert len(asked) == len(set(asked))


def test_without_a_limit_one_size_is_enough() -> None:
    asked: list[float] = []
    sizes = Sizes(exact=lambda width: asked.append(width) or PARAMETER_BYTES[width], least=lambda width: 45)  # type: ignore[func-returns-value]
    PLANNER.plan(PHONE, Budget(), MODEL, History(examples=600, sizes=sizes))
    assert len(asked) == 1


def test_the_baseline_is_one_float32_epoch_whatever_the_budget() -> None:
    plan = FixedPlanner(SETTINGS).plan(PHONE, Budget(energy_j=1e-6), MODEL, HISTORY)
    assert isinstance(plan, Plan)
    assert (plan.width, plan.local_steps, plan.batch_size, plan.nmse) == (1.0, 19, 32, 0.0)


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_every_policy_plans(name: str) -> None:
    assert isinstance(PLANNERS[name](SETTINGS).plan(PHONE, Budget(), MODEL, HISTORY), Plan)


profiles = st.builds(
    lambda speed, watts, burst, bfloat16: replace(
        PHONE, train_flops_per_s=speed, train_w=watts, radio_j_per_burst=burst, bfloat16=bfloat16
    ),
    st.floats(1e7, 1e11),
    st.floats(0.5, 10),
    st.sampled_from([0.0, 0.5, 12.0]),
    st.booleans(),
)
requests = st.builds(
    lambda profile, budget, startup_s, startup_j, history: Request(
        profile=profile,
        budget=budget,
        cost_model=replace(MODEL, startup_s=startup_s, startup_j=startup_j),
        history=history,
    ),
    profiles,
    budgets,
    st.floats(0, 5),
    st.floats(0, 5),
    histories,
)


@given(st.lists(requests, min_size=1, max_size=6))
def test_many_devices_at_once_get_the_plans_that_each_gets_alone(asked: list[Request]) -> None:
    reference = ReferencePlanner(SETTINGS)
    alone = [reference.plan(each.profile, each.budget, each.cost_model, each.history) for each in asked]
    assert PLANNER.plan_all(asked) == alone


def test_a_block_of_devices_may_be_larger_than_a_block_of_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        Request(profile=PHONE, budget=Budget(energy_j=0.5 + i), cost_model=MODEL, history=HISTORY)
        for i in range(5)
    ]
    together = PLANNER.plan_all(asked)
    monkeypatch.setattr(enumerating, "_BLOCK", 1)
    assert PLANNER.plan_all(asked) == together
    assert len({plan.reason for plan in together if isinstance(plan, Plan)}) > 1
