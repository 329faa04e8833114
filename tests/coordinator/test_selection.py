from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.coordinator.planning.selection import ORDERS, Candidate
from slimfleet.coordinator.settings import SelectionSettings

SETTINGS = SelectionSettings(energy_exponent=1.0)


def candidate(node: int, round_j: float = 1.0, loss=None, battery=None, charging=False, **said) -> Candidate:
    said = {"metered": None, "temperature_c": None} | said
    return Candidate(node=node, round_j=round_j, loss=loss, battery=battery, charging=charging, **said)


def first_places(policy: str, candidates, settings=SETTINGS, draws: int = 4_000) -> dict[int, float]:
    """How often each node is asked first."""
    rng = np.random.default_rng(0)
    counts = Counter(ORDERS[policy](candidates, settings, rng)[0] for _ in range(draws))
    return {c.node: counts[c.node] / draws for c in candidates}


@pytest.mark.parametrize("policy", ORDERS)
def test_an_order_is_a_permutation_that_the_seed_decides(policy):
    candidates = [candidate(node, round_j=node + 1.0) for node in range(30)]
    orders = [ORDERS[policy](candidates, SETTINGS, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert sorted(orders[0]) == list(range(30))
    assert orders[0] == orders[1] != orders[2]
    assert ORDERS[policy]([], SETTINGS, np.random.default_rng(0)) == []


def test_uniform_looks_at_nothing():
    hot = candidate(2, 1.0, battery=0.3, metered=True, temperature_c=90.0)
    shares = first_places("uniform", [candidate(0, 1.0), candidate(1, 1e6), hot])
    assert shares == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3}, abs=0.03)


def test_the_first_place_goes_by_weight():
    """Efraimidis & Spirakis 2006: the first of the order is drawn in proportion to its weight."""
    shares = first_places("utility", [candidate(0, 1.0), candidate(1, 3.0), candidate(2, 6.0)])
    assert shares == pytest.approx({0: 6 / 9, 1: 2 / 9, 2: 1 / 9}, abs=0.03)


def test_a_half_empty_battery_halves_the_weight_unless_it_charges():
    full, half = candidate(0), candidate(1, battery=0.5)
    charging = candidate(2, battery=0.5, charging=True)
    shares = first_places("utility", [full, half, charging])
    assert shares == pytest.approx({0: 0.4, 1: 0.2, 2: 0.4}, abs=0.03)


def test_loss_counts_where_it_should_and_the_unknown_are_as_promising_as_the_best():
    settings = SelectionSettings(energy_exponent=0.0, utility_exponent=1.0)
    shares = first_places("utility", [candidate(0, loss=2.0), candidate(1, loss=0.5), candidate(2)], settings)
    assert shares == pytest.approx({0: 4 / 9, 1: 1 / 9, 2: 4 / 9}, abs=0.03)


@pytest.mark.parametrize(
    ("said", "weight"),
    [
        ({"metered": False}, 2.0),
        ({"metered": True}, 0.5),
        ({"temperature_c": 20.0}, 2.0),
        ({"temperature_c": 40.0}, 2.0),
        ({"temperature_c": 60.0}, 1.0),
        ({"temperature_c": 80.0}, 0.5),
        ({"metered": False, "temperature_c": 40.0}, 4.0),
        ({"metered": False, "temperature_c": 80.0}, 1.0),
    ],
)
def test_condition_weighs_against_a_device_that_says_nothing(said, weight):
    shares = first_places("utility", [candidate(0), candidate(1, **said)])
    assert shares[1] / shares[0] == pytest.approx(weight, rel=0.1)


def test_a_factor_of_one_ignores_the_condition():
    settings = SelectionSettings(condition_factor=1.0)
    worst = candidate(1, metered=True, temperature_c=90.0)
    assert first_places("utility", [candidate(0), worst], settings)[1] == pytest.approx(0.5, abs=0.03)


# Worst first: unknown is neither the best nor the worst of what a device may say.
METERED = st.sampled_from([[True, None], [None, False], [True, False]])
WARM = st.floats(60.0, 200.0)
COOL = st.floats(-60.0, 60.0)
TEMPERATURE = st.one_of(
    st.tuples(WARM, st.none()),
    st.tuples(st.none(), COOL),
    st.tuples(WARM, COOL),
    st.tuples(COOL, st.just(-60.0)),
)
OTHERS = st.lists(
    st.tuples(st.sampled_from([None, False, True]), st.none() | st.floats(-60.0, 200.0)), max_size=8
)


@given(
    metered=METERED, temperature_c=TEMPERATURE, others=OTHERS, seed=st.integers(0, 2**32), both=st.booleans()
)
def test_a_better_condition_never_moves_a_device_back(metered, temperature_c, others, seed, both):
    rest = [candidate(1 + i, metered=m, temperature_c=t) for i, (m, t) in enumerate(others)]

    def place(at: int) -> int:
        temperature = temperature_c[at] if both else None
        one = candidate(0, metered=metered[at], temperature_c=temperature)
        return ORDERS["utility"]([one, *rest], SETTINGS, np.random.default_rng(seed)).index(0)

    assert place(1) <= place(0)
