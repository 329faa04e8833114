from dataclasses import replace

import numpy as np
import pytest
import torch

from slimfleet.client.round import run_round
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Budget, BudgetExceeded, Examples, PayloadError, Training
from slimfleet.compression.codec import CodecSpec, decode, encode
from slimfleet.compression.cost import RUNTIMES, peak_memory_bytes
from slimfleet.compression.held_out import LocalData
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.compression.wire import unseal
from slimfleet.simulations.ledger import SimulatedLedger

RUNNING = ("1.running_mean", "1.running_var")
COUNTER = "1.num_batches_tracked"


@pytest.fixture
def ledger(phone):
    return SimulatedLedger(phone, None, 0.5)


@pytest.fixture
def do_round(workbench, task, phone, ledger, no_residual):
    def run(sent, residual=no_residual, examples=None, workbench=workbench):
        assignment, payload = sent
        received = workbench.open(payload)
        return run_round(
            workbench, phone, LocalData(examples or task.load(0)), assignment, received, residual, ledger
        )

    return run


def full_schema(architecture):
    return architecture.schema


def test_the_update_is_what_training_changed_and_the_residual_what_the_codec_dropped(
    do_round, send, task, architecture, no_residual
):
    """In float32 nothing is dropped; quantised, decoded update and residual add up to the same change."""
    whole, _, nothing = do_round(send(nmse=0.0))
    coarse, report, unsent = do_round(send(nmse=0.4))
    change = decode(whole, architecture.schema).tensors
    sent = decode(coarse, architecture.schema).tensors
    weights = [t.name for t in architecture.schema.weights]
    assert all(not nothing[name].any() for name in weights)
    assert any(unsent[name].any() for name in weights)
    for name in weights:
        np.testing.assert_allclose(sent[name] + unsent[name], change[name], atol=1e-6)
    assert len(coarse) < len(whole) / 4
    assert report.spent.uplink_bytes == len(coarse)


def test_the_residual_is_sent_with_the_next_update(do_round, send, architecture, no_residual):
    extra = {name: value.copy() for name, value in no_residual.items()}
    extra["4.bias"][:] = [0.01, -0.02]
    plain, _, _ = do_round(send(nmse=0.0))
    more, _, _ = do_round(send(nmse=0.0), extra)
    off = send(nmse=0.0, training=Training(learning_rate=0.1, feedback=False))
    without, _, _ = do_round(off, extra)
    biases = [decode(p, architecture.schema).tensors["4.bias"] for p in (plain, more, without)]
    np.testing.assert_allclose(biases[1] - biases[0], [0.01, -0.02], atol=1e-7)
    assert np.array_equal(biases[2], biases[0])
    assert extra["4.bias"].tolist() == np.float32([0.01, -0.02]).tolist(), (
        "the caller's residual is untouched"
    )


def test_the_residual_is_what_the_decoder_lacks_and_not_what_the_encoder_meant(do_round, send, architecture):
    """Built on the decoded payload, also where the uplink limit made it coarser than planned."""
    for changes in ({"nmse": 0.3}, {"nmse": 0.01, "budget": Budget(uplink_bytes=250)}):
        exact, _, _ = do_round(send(nmse=0.0))
        payload, _, unsent = do_round(send(**changes))
        lacking = {
            name: value - decode(payload, architecture.schema).tensors[name]
            for name, value in decode(exact, architecture.schema).tensors.items()
        }
        for tensor in architecture.schema.weights:
            np.testing.assert_allclose(unsent[tensor.name], lacking[tensor.name], atol=1e-6)


def test_a_residual_is_cut_to_some_norms_of_the_update(do_round, send, architecture, no_residual):
    weights = [t.name for t in architecture.schema.weights]
    huge = {n: np.full(v.shape, 1e3 if n in weights else 0, np.float32) for n, v in no_residual.items()}

    def norm(tensors):
        return np.sqrt(sum(float(np.sum(tensors[name].astype(np.float64) ** 2)) for name in weights))

    training = Training(learning_rate=0.1, feedback_max_norm=2.0)
    alone, _, _ = do_round(send(nmse=0.0, training=training))
    together, _, unsent = do_round(send(nmse=0.0, training=training), huge)
    alone, together = (decode(payload, architecture.schema).tensors for payload in (alone, together))
    added = {name: together[name] - alone[name] for name in weights}
    assert norm(added) == pytest.approx(2.0 * norm(alone), rel=1e-3)
    assert norm(unsent) == 0, "what was cut off is dropped, not kept for later"


def test_a_narrow_round_leaves_the_rest_of_the_residual_alone(do_round, send, no_residual):
    rng = np.random.default_rng(1)
    residual = {n: rng.normal(0, 1e-3, v.shape).astype(np.float32) for n, v in no_residual.items()}
    _, _, leftover = do_round(send(width=0.5), residual)
    assert np.array_equal(leftover["0.weight"][4:], residual["0.weight"][4:])
    assert not np.array_equal(leftover["0.weight"][:4], residual["0.weight"][:4])
    assert all(np.array_equal(leftover[name], residual[name]) for name in (*RUNNING, COUNTER))


def test_batch_norm_statistics_travel_and_the_counter_stays_whole(do_round, send, architecture, task):
    payload, report, _ = do_round(send(nmse=0.5, local_steps=3))
    update = decode(payload, architecture.schema).tensors
    assert update[COUNTER].dtype == np.int64
    assert update[COUNTER] == report.steps == 3
    model = task.build_model()
    load_tensors(model, tensors_of(architecture.model))
    change = update[RUNNING[0]]
    # 0.9^3 of the old statistics is left; float16 on the way.
    assert 0.01 < np.abs(change).max() < 1.0


def test_the_same_round_gives_the_same_bytes_and_another_plan_id_others(
    workbench, task, send, phone, no_residual
):
    def payload(plan_id, workbench):
        torch.manual_seed(0)
        ledger = SimulatedLedger(phone, None, 0.5)
        assignment, sent = send(plan_id=plan_id, training=Training(learning_rate=0.1, rounding="stochastic"))
        received = workbench.open(sent)
        return run_round(
            workbench, phone, LocalData(task.load(0)), assignment, received, no_residual, ledger
        )[0]

    fresh = Workbench(task, workbench.blueprint, workbench.runtime)
    assert payload(7, workbench) == payload(7, workbench) == payload(7, fresh)
    assert payload(7, workbench)[48:] != payload(8, workbench)[48:]


def test_the_blueprint_is_never_trained(do_round, send, architecture):
    before = tensors_of(architecture.model)
    do_round(send())
    after = tensors_of(architecture.model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_report_adds_up(do_round, send, workbench, phone):
    sent = send(width=0.5, local_steps=4)
    payload, report, _ = do_round(sent)
    sub = workbench.open(sent[1])
    work_s = sub.work.flops_per_example * 4 * 8 / phone.train_flops_per_s
    assert (report.examples, report.steps, report.stopped_by) == (40, 4, None)
    assert report.source == "simulated"
    assert report.spent.downlink_bytes == len(sent[1])
    radio_j = 0.5 + 5e-6 * len(sent[1]) + 1e-5 * len(payload)
    assert report.spent.radio_j == pytest.approx(radio_j)
    assert report.spent.energy_j == pytest.approx(4.0 * work_s + radio_j)
    moved_s = len(sent[1]) / 20_000 + len(payload) / 10_000
    assert report.spent.time_s == pytest.approx(0.5 + work_s + moved_s)
    assert report.spent.memory_bytes == peak_memory_bytes(RUNTIMES["lite"], sub.work, 8)


def test_the_answer_names_its_round_and_plan(do_round, send):
    header = unseal(do_round(send(round_number=12, plan_id=2**64 - 1))[0]).header
    assert (header.base_version, header.plan_id) == (12, 2**64 - 1)


@pytest.mark.parametrize(
    ("budget", "constraint"),
    [
        (Budget(memory_bytes=44_000_000), "memory_bytes"),
        (Budget(energy_j=0.4), "energy_j"),
        (Budget(deadline_s=0.1), "deadline_s"),
        (Budget(uplink_bytes=60), "uplink_bytes"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_by_name(do_round, send, budget, constraint):
    with pytest.raises(BudgetExceeded) as refusal:
        do_round(send(budget=budget))
    assert refusal.value.constraint == constraint


def test_a_tight_uplink_makes_the_update_coarser(do_round, send):
    free, _, _ = do_round(send(nmse=0.01))
    tight, report, unsent = do_round(send(nmse=0.01, budget=Budget(uplink_bytes=150)))
    assert len(tight) <= 150 < len(free)
    assert report.steps == 3
    assert max(float(np.abs(value).max()) for value in unsent.values()) > 0


@pytest.mark.parametrize("damage", [lambda p: p[:-1], lambda p: b"", lambda p: p[:60] + b"\xff" + p[61:]])
def test_a_model_that_cannot_be_decoded_is_refused(do_round, send, damage):
    assignment, payload = send()
    with pytest.raises(PayloadError):
        do_round((assignment, damage(payload)))


def test_an_update_in_place_of_a_model_is_refused(do_round, send, architecture):
    assignment, _ = send()
    update = encode(tensors_of(architecture.model), architecture.schema, CodecSpec(bits=8)).payload
    with pytest.raises(PayloadError, match="a device needs a model"):
        do_round((assignment, update))


def test_training_that_diverges_is_refused(do_round, send):
    with pytest.raises(PayloadError) as refusal:
        do_round(send(training=Training(learning_rate=1e30)))
    assert refusal.value.reason == "nonfinite"


def test_one_example_is_enough(do_round, send, task):
    some = task.load(0)
    _, report, _ = do_round(send(), examples=Examples(some.inputs[:2], some.targets[:2]))
    assert (report.examples, report.steps) == (2, 3)


def test_bfloat16_plans_train(do_round, send):
    single = do_round(send(nmse=0.0))[0]
    half, report, _ = do_round(send(nmse=0.0, precision="bfloat16"))
    assert report.steps == 3
    assert half != single


def test_a_slow_true_device_spends_more_than_its_profile_says(workbench, task, send, phone, no_residual):
    assignment, payload = send()
    nominal = SimulatedLedger(phone, None, 0.5)
    slow = SimulatedLedger(replace(phone, train_flops_per_s=phone.train_flops_per_s / 2), None, 0.5)
    costs = [
        run_round(
            workbench,
            phone,
            LocalData(task.load(0)),
            assignment,
            workbench.open(payload),
            no_residual,
            ledger,
        )[1].spent
        for ledger in (nominal, slow)
    ]
    compute_j = [cost.energy_j - cost.radio_j for cost in costs]
    assert compute_j[1] == pytest.approx(2 * compute_j[0])
