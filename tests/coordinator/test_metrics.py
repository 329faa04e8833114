import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from slimfleet.compression import Cost, Evaluation, Report, Skip
from slimfleet.compression.errors import BadInput
from slimfleet.compression.wire import REASONS
from slimfleet.coordinator import Answer, Closed, Saved
from slimfleet.coordinator.observing.prometheus import serve, serve_metrics
from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics
from slimfleet.coordinator.observing.prometheus.families import MOST_DEVICE_CLASSES
from slimfleet.coordinator.observing.prometheus.names import METRICS
from slimfleet.coordinator.observing.prometheus.serve import MetricsServer


class Watched:
    """A FleetMetrics on a fresh registry with a clock that stands still, told events of a real federation."""

    def __init__(self, federation):
        self.registry = CollectorRegistry()
        self.metrics = FleetMetrics(self.registry, federation="test", clock=lambda: 1234.5)
        self.state, self.settings = federation.state, federation.coordinator.settings
        self.planned = federation.plan()
        self.dispatch = self.planned.dispatches[0]
        self.row = replace(federation.step().row, applied=True)

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, {"federation": "test", **labels})

    def lines(self):
        return generate_latest(self.registry).decode().splitlines()

    def calls_itself(self, device_class):
        profile = self.state.registry[self.dispatch.node].profile
        self.state.registry[self.dispatch.node].profile = replace(profile, device_class=device_class)

    def closes(self, *answers, **fields):
        """A round is over with these answers."""
        closed = {"row": self.row, "evaluation": None, "seconds": {}} | fields
        self.metrics(Closed(answers=answers, settings=self.settings, state=self.state, **closed))

    def answers(self, device_class="pi", verdict="accepted", **fields):
        """A round is over with one answer."""
        self.calls_itself(device_class)
        self.closes(Answer(dispatch=self.dispatch, verdict=verdict, **fields))

    def spends(self, device_class="phone", source="measured", **spent):
        self.answers(device_class, report=report(source=source, **spent))


@pytest.fixture
def watched(federate):
    return Watched(federate())


def report(energy_j=10.0, radio_j=4.0, time_s=3.0, source="measured", loss=0.25):
    cost = Cost(
        energy_j=energy_j, radio_j=radio_j, time_s=time_s, memory_bytes=1, uplink_bytes=1, downlink_bytes=1
    )
    return Report(spent=cost, source=source, loss=loss, examples=1, steps=1)


def test_a_round_is_followed(watched):
    watched.metrics(replace(watched.planned, round_number=7, seconds=0.3))
    assert watched.value("slimfleet_run_active") == 1
    assert watched.value("slimfleet_round_current") == 7
    assert watched.value("slimfleet_round_phase_duration_seconds_sum", phase="select") == 0.3
    watched.closes(
        Answer(dispatch=watched.dispatch, verdict="accepted"),
        row=replace(watched.row, round=6, completed=1),
        seconds={"train": 12.0},
    )
    assert watched.value("slimfleet_rounds_total", outcome="completed") == 1
    assert watched.value("slimfleet_rounds_total", outcome="failed") == 0
    assert watched.value("slimfleet_last_progress_timestamp_seconds") == 1234.5
    assert watched.value("slimfleet_round_phase_duration_seconds_sum", phase="train") == 12
    assert watched.value("slimfleet_round_phase_duration_seconds_bucket", phase="train", le="10.0") == 0
    assert watched.value("slimfleet_round_phase_duration_seconds_bucket", phase="train", le="30.0") == 1
    assert watched.value("slimfleet_run_active") == 0  # it was the last of six


def test_the_buffer_fills_and_is_emptied(watched):
    watched.metrics(watched.planned)
    assert watched.value("slimfleet_round_updates") == 0
    assert watched.value("slimfleet_round_updates_wanted") == watched.settings.quota
    for verdict in ("accepted", "failed", "accepted", "rejected"):
        watched.metrics(Answer(dispatch=watched.dispatch, verdict=verdict))
    assert watched.value("slimfleet_round_updates") == 2
    watched.closes()
    assert watched.value("slimfleet_round_updates") == 0


def test_staleness_is_that_of_updates_that_are_used(watched):
    answers = [
        Answer(dispatch=watched.dispatch, verdict=verdict, staleness=steps)
        for verdict, steps in (("accepted", 0), ("accepted", 4), ("failed", 9))
    ]
    watched.closes(*answers)
    name = "slimfleet_update_staleness_steps"
    assert (watched.value(f"{name}_count"), watched.value(f"{name}_sum")) == (2, 4)
    assert [watched.value(f"{name}_bucket", le=le) for le in ("0.0", "3.0", "5.0")] == [1, 1, 2]


def test_how_well_classes_of_devices_are_served(watched):
    assert watched.value("slimfleet_device_accuracy_ratio", statistic="mean") is None
    served = {"pi": 0.5, "phone": 0.75}
    watched.closes(
        row=replace(
            watched.row,
            accuracy_by_device_class=served,
            fairness_mean=0.7,
            fairness_worst_decile=0.25,
            fairness_spread=0.125,
        )
    )
    watched.closes()  # nobody evaluated: the last values stay
    for name, accuracy in served.items():
        assert watched.value("slimfleet_device_class_accuracy_ratio", device_class=name) == accuracy
    found = {
        each: watched.value("slimfleet_device_accuracy_ratio", statistic=each)
        for each in ("mean", "worst_decile", "spread")
    }
    assert found == {"mean": 0.7, "worst_decile": 0.25, "spread": 0.125}


def test_energy_is_split_by_component_and_source(watched):
    watched.spends(energy_j=10, radio_j=4)
    watched.spends(energy_j=1, radio_j=0, source="simulated")
    joules = {
        (component, source): watched.value(
            "slimfleet_client_energy_joules_total", device_class="phone", component=component, source=source
        )
        for component in ("compute", "radio")
        for source in ("measured", "estimated", "simulated")
    }
    assert joules == {
        ("compute", "measured"): 6,
        ("radio", "measured"): 4,
        ("compute", "estimated"): 0,
        ("radio", "estimated"): 0,
        ("compute", "simulated"): 1,
        ("radio", "simulated"): 0,
    }
    assert watched.value("slimfleet_client_round_energy_joules_count", device_class="phone") == 2
    assert watched.value("slimfleet_client_task_duration_seconds_sum", device_class="phone") == 6


@pytest.mark.parametrize(
    ("energy_j", "flaw", "counted"),
    [
        (float("nan"), "nonfinite", 0),
        (float("inf"), "nonfinite", 0),
        (-1.0, "negative", 0),
        (1e12, "too_large", 1e6),
    ],
)
def test_implausible_joules_are_left_out_or_cut_and_counted(watched, energy_j, flaw, counted):
    watched.spends(energy_j=energy_j, radio_j=0)
    assert watched.value("slimfleet_telemetry_rejected_total", reason=flaw) == 1
    assert watched.value("slimfleet_client_round_energy_joules_sum", device_class="phone") == counted
    labels = {"device_class": "phone", "component": "compute", "source": "measured"}
    assert watched.value("slimfleet_client_energy_joules_total", **labels) == counted


def test_more_radio_than_energy_never_counts_backwards(watched):
    watched.spends(energy_j=3, radio_j=5)
    labels = {"device_class": "phone", "source": "measured"}
    assert watched.value("slimfleet_client_energy_joules_total", component="compute", **labels) == 0
    assert watched.value("slimfleet_client_energy_joules_total", component="radio", **labels) == 3


def test_bytes_are_counted_raw_and_on_the_wire(watched):
    raw = watched.dispatch.index_map.schema.nbytes
    for size in (raw // 100, raw // 8):
        watched.answers(received_bytes=size)
    labels = {"device_class": "pi", "direction": "uplink"}
    assert watched.value("slimfleet_update_bytes_total", stage="raw", **labels) == 2 * raw
    assert watched.value("slimfleet_update_bytes_total", stage="wire", **labels) == raw // 100 + raw // 8
    ratio = "slimfleet_update_compression_ratio_bucket"
    counts = [watched.value(ratio, direction="uplink", le=le) for le in ("4.0", "8.0", "64.0", "128.0")]
    assert counts == [0, 1, 1, 2]
    sent = watched.value(
        "slimfleet_update_bytes_total", device_class="pi", direction="downlink", stage="wire"
    )
    assert sent == 2 * len(watched.dispatch.payload)


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("dropout", "dropout"),
        ("timeout", "timeout"),
        ("late", "late"),
        ("outdated", "stale"),
        ("memory_bytes", "refused"),
        ("error", "error"),
        ("Traceback: at 0x7f", "refused"),
    ],
)
def test_tasks_are_counted_by_a_bounded_outcome(watched, word, outcome):
    watched.answers(verdict="failed", reason=word)
    watched.answers()
    watched.answers(verdict="rejected", reason="norm")
    tasks = {
        o: watched.value("slimfleet_client_tasks_total", device_class="pi", outcome=o)
        for o in (outcome, "ok", "rejected")
    }
    assert tasks == {outcome: 1, "ok": 1, "rejected": 1}


def test_every_reason_of_the_wire_has_its_own_series_and_unknown_words_are_other(watched):
    for reason in REASONS:
        assert watched.value("slimfleet_updates_rejected_total", reason=reason) == 0
        watched.closes(Answer(dispatch=None, verdict="rejected", reason=reason))
        assert watched.value("slimfleet_updates_rejected_total", reason=reason) == 1
    before = len(watched.lines())
    for word in ("evil", "evil2", 'x"} 1\nfake'):
        watched.closes(Answer(dispatch=None, verdict="rejected", reason=word))
    assert watched.value("slimfleet_updates_rejected_total", reason="other") == 3
    assert len(watched.lines()) == before
    assert watched.value("slimfleet_nonfinite_values_total", where="update") == 1


def test_skips_and_violations_name_the_constraint(watched):
    watched.calls_itself("pi")
    for constraint in ("memory_bytes", "astrology"):
        skip = Skip(constraint=constraint, needed=2.0, limit=1.0)
        watched.metrics(replace(watched.planned, skipped={watched.dispatch.node: skip}))
    watched.answers(broken=("energy_j",))
    name = "slimfleet_clients_skipped_total"
    assert watched.value(name, device_class="pi", constraint="memory_bytes") == 1
    assert watched.value(name, device_class="pi", constraint="other") == 1
    assert watched.value("slimfleet_budget_violations_total", constraint="energy_j") == 1


def test_a_loss_that_is_not_finite_is_counted_and_the_last_good_one_stays(watched):
    assert watched.value("slimfleet_model_accuracy_ratio", split="validation") is None
    watched.closes(evaluation=Evaluation(0.5, 0.9))
    watched.closes(evaluation=Evaluation(float("nan"), 0.1))
    watched.spends()
    assert watched.value("slimfleet_model_loss", split="validation") == 0.5
    assert watched.value("slimfleet_model_loss", split="train") == 0.25
    assert watched.value("slimfleet_model_accuracy_ratio", split="validation") == 0.1
    assert watched.value("slimfleet_nonfinite_values_total", where="loss") == 1
    watched.closes(evaluation=Evaluation(0.5, float("nan")))
    assert watched.value("slimfleet_nonfinite_values_total", where="loss") == 2
    assert watched.value("slimfleet_model_accuracy_ratio", split="validation") == 0.1


def test_the_rest_of_the_gauges(watched):
    watched.state.rows[:] = [replace(watched.row, energy_j=99.5)]
    watched.closes(row=replace(watched.row, size_error=0.125))
    watched.metrics(Saved(folder=Path("round-000001"), size_bytes=1_000, seconds=0.5))
    assert watched.value("slimfleet_run_energy_joules") == 99.5
    assert watched.value("slimfleet_update_size_error_ratio") == 0.125
    assert watched.value("slimfleet_checkpoint_bytes") == 1_000
    assert watched.value("slimfleet_checkpoint_timestamp_seconds") == 1234.5
    assert watched.value("slimfleet_round_phase_duration_seconds_sum", phase="checkpoint") == 0.5


def test_a_scrape_does_not_grow_with_the_devices_or_with_what_they_call_themselves(watched):
    for device in range(200):
        watched.spends(f"class-{device % 10}")
    before = len(watched.lines())
    for device in range(2_000):
        watched.answers(f"class-{device % 10}")
    assert len(watched.lines()) == before
    for device in range(100):
        watched.answers(f"invented-{device}")
        watched.answers("\n{" * device)
    pattern = re.compile(r'device_class="([^"]*)"')
    classes = {match for line in watched.lines() for match in pattern.findall(line)}
    assert len(classes) == MOST_DEVICE_CLASSES + 1
    assert "other" in classes


def test_the_exposition_parses_and_holds_the_table_and_nothing_else(watched):
    watched.answers()
    text = generate_latest(watched.registry).decode()
    exported = {family.name for family in text_string_to_metric_families(text)}
    assert {name for name in exported if not name.endswith("_created")} == {
        metric.name.removesuffix("_total") for metric in METRICS
    }


def test_names_follow_the_conventions():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("slimfleet_")
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert not {"device", "device_id", "node", "client", "instance", "job"} & metric.labels.keys()


def test_a_registry_takes_one_fleet():
    registry = CollectorRegistry()
    FleetMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        FleetMetrics(registry)


def test_the_coordinator_needs_no_prometheus_client():
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from slimfleet.coordinator import Coordinator\n"
        "from slimfleet.coordinator.observing.prometheus import serve_metrics\n"
        "try:\n    serve_metrics(0)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.startswith("BadInput a metrics port needs prometheus-client")


def test_metrics_are_served_until_closed(watched):
    metrics, server = serve_metrics(0, federation="served")
    metrics(replace(watched.planned, round_number=3))
    with urllib.request.urlopen(server.url, timeout=10) as answer:
        assert b'slimfleet_round_current{federation="served"} 3.0' in answer.read()
    server.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(server.url, timeout=10)
    with MetricsServer(CollectorRegistry(), server.port) as again:
        assert again.port == server.port


def test_an_address_that_cannot_be_used_is_bad_input():
    with (
        MetricsServer(CollectorRegistry(), 0) as server,
        pytest.raises(BadInput, match=f"127.0.0.1:{server.port}"),
    ):
        MetricsServer(CollectorRegistry(), server.port)
    with pytest.raises(BadInput, match="cannot serve"):
        MetricsServer(CollectorRegistry(), 70_000)


def test_a_client_that_dawdles_is_cut_off_and_holds_no_thread(monkeypatch, capfd):
    monkeypatch.setattr(serve, "LONGEST_SCRAPE_S", 0.3)
    registry = CollectorRegistry()
    wide = Gauge("wide", "More than the buffers of a socket hold.", ["label"], registry=registry)
    for number in range(20_000):
        wide.labels(f"{number:0200}").set(1)
    asleep = set(threading.enumerate())
    with MetricsServer(registry, 0) as server:
        clients = [socket.create_connection((server.host, server.port), timeout=10) for _ in range(4)]
        for client, request in zip(
            clients,
            [b"", b"GET /metrics", b"GET /metrics HTTP/1.0\r\n", b"GET /metrics HTTP/1.0\r\n\r\n"],
            strict=True,
        ):
            client.sendall(request)
        asleep |= {thread for thread in threading.enumerate() if "process_request" not in thread.name}
        until = time.monotonic() + 20
        while set(threading.enumerate()) - asleep and time.monotonic() < until:
            time.sleep(0.05)
        assert set(threading.enumerate()) <= asleep, "no thread serves the dawdlers any more"
        for client in clients:
            client.close()
    assert capfd.readouterr().err == ""
