import inspect
import re
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from slimfleet.compression.errors import BadInput
from slimfleet.compression.types import Cost
from slimfleet.compression.wire import REASONS
from slimfleet.coordinator.observing.prometheus import Metrics, NoMetrics, fleet_metrics, serve_metrics
from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics
from slimfleet.coordinator.observing.prometheus.families import MOST_DEVICE_CLASSES
from slimfleet.coordinator.observing.prometheus.names import METRICS
from slimfleet.coordinator.observing.prometheus.serve import MetricsServer


class Watched:
    """A FleetMetrics on a fresh registry with a clock that stands still."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.metrics = FleetMetrics(self.registry, federation="test", clock=lambda: 1234.5)

    def value(self, name, **labels):
        return self.registry.get_sample_value(name, {"federation": "test", **labels})

    def lines(self):
        return generate_latest(self.registry).decode().splitlines()


@pytest.fixture
def watched():
    return Watched()


def cost(energy_j=10.0, radio_j=4.0, time_s=3.0):
    return Cost(
        energy_j=energy_j, radio_j=radio_j, time_s=time_s, memory_bytes=1, uplink_bytes=1, downlink_bytes=1
    )


def test_a_round_is_followed(watched):
    metrics = watched.metrics
    metrics.run_started()
    metrics.round_started(7)
    metrics.phase("train", 12.0)
    metrics.round_finished("completed")
    assert watched.value("slimfleet_run_active") == 1
    assert watched.value("slimfleet_round_current") == 7
    assert watched.value("slimfleet_rounds_total", outcome="completed") == 1
    assert watched.value("slimfleet_rounds_total", outcome="failed") == 0
    assert watched.value("slimfleet_last_progress_timestamp_seconds") == 1234.5
    assert watched.value("slimfleet_round_phase_duration_seconds_sum", phase="train") == 12
    assert watched.value("slimfleet_round_phase_duration_seconds_bucket", phase="train", le="10.0") == 0
    assert watched.value("slimfleet_round_phase_duration_seconds_bucket", phase="train", le="30.0") == 1
    metrics.run_ended()
    assert watched.value("slimfleet_run_active") == 0


def test_energy_is_split_by_component_and_source(watched):
    watched.metrics.spent("phone", cost(energy_j=10, radio_j=4), "measured")
    watched.metrics.spent("phone", cost(energy_j=1, radio_j=0), "simulated")
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
    watched.metrics.spent("phone", cost(energy_j=energy_j, radio_j=0), "measured")
    assert watched.value("slimfleet_telemetry_rejected_total", reason=flaw) == 1
    assert watched.value("slimfleet_client_round_energy_joules_sum", device_class="phone") == counted
    labels = {"device_class": "phone", "component": "compute", "source": "measured"}
    assert watched.value("slimfleet_client_energy_joules_total", **labels) == counted


def test_more_radio_than_energy_never_counts_backwards(watched):
    watched.metrics.spent("phone", cost(energy_j=3, radio_j=5), "measured")
    labels = {"device_class": "phone", "source": "measured"}
    assert watched.value("slimfleet_client_energy_joules_total", component="compute", **labels) == 0
    assert watched.value("slimfleet_client_energy_joules_total", component="radio", **labels) == 3


def test_bytes_are_counted_raw_and_on_the_wire(watched):
    watched.metrics.transferred("pi", "uplink", 400_000, 4_000)
    watched.metrics.transferred("pi", "uplink", 400_000, 50_000)
    labels = {"device_class": "pi", "direction": "uplink"}
    assert watched.value("slimfleet_update_bytes_total", stage="raw", **labels) == 800_000
    assert watched.value("slimfleet_update_bytes_total", stage="wire", **labels) == 54_000
    ratio = "slimfleet_update_compression_ratio_bucket"
    assert [watched.value(ratio, direction="uplink", le=le) for le in ("4.0", "8.0", "64.0", "128.0")] == [
        0,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("ok", "ok"),
        ("rejected", "rejected"),
        ("timeout", "timeout"),
        ("late", "timeout"),
        ("lost", "dropout"),
        ("memory_bytes", "refused"),
        ("error", "error"),
        ("Traceback: at 0x7f", "error"),
    ],
)
def test_tasks_are_counted_by_a_bounded_outcome(watched, word, outcome):
    watched.metrics.task("pi", word)
    assert watched.value("slimfleet_client_tasks_total", device_class="pi", outcome=outcome) == 1


def test_every_reason_of_the_wire_has_its_own_series_and_unknown_words_are_other(watched):
    for reason in REASONS:
        assert watched.value("slimfleet_updates_rejected_total", reason=reason) == 0
        watched.metrics.rejected(reason)
        assert watched.value("slimfleet_updates_rejected_total", reason=reason) == 1
    before = len(watched.lines())
    for word in ("evil", "evil2", 'x"} 1\nfake'):
        watched.metrics.rejected(word)
    assert watched.value("slimfleet_updates_rejected_total", reason="other") == 3
    assert len(watched.lines()) == before
    assert watched.value("slimfleet_nonfinite_values_total", where="update") == 1


def test_skips_and_violations_name_the_constraint(watched):
    watched.metrics.skipped("pi", "memory_bytes")
    watched.metrics.skipped("pi", "astrology")
    watched.metrics.violated("energy_j")
    name = "slimfleet_clients_skipped_total"
    assert watched.value(name, device_class="pi", constraint="memory_bytes") == 1
    assert watched.value(name, device_class="pi", constraint="other") == 1
    assert watched.value("slimfleet_budget_violations_total", constraint="energy_j") == 1


def test_a_loss_that_is_not_finite_is_counted_and_the_last_good_one_stays(watched):
    assert watched.value("slimfleet_model_accuracy_ratio", split="validation") is None
    watched.metrics.evaluated("validation", 0.5, 0.9)
    watched.metrics.evaluated("validation", float("nan"), 0.1)
    watched.metrics.evaluated("train", 0.25)
    assert watched.value("slimfleet_model_loss", split="validation") == 0.5
    assert watched.value("slimfleet_model_loss", split="train") == 0.25
    assert watched.value("slimfleet_model_accuracy_ratio", split="validation") == 0.1
    assert watched.value("slimfleet_nonfinite_values_total", where="loss") == 1


def test_the_rest_of_the_gauges(watched):
    watched.metrics.clients("pi", "available", 40)
    watched.metrics.run_energy(99.5)
    watched.metrics.size_error(0.125)
    watched.metrics.checkpointed(1_000)
    assert watched.value("slimfleet_clients", device_class="pi", state="available") == 40
    assert watched.value("slimfleet_clients", device_class="pi", state="offline") == 0
    assert watched.value("slimfleet_run_energy_joules") == 99.5
    assert watched.value("slimfleet_update_size_error_ratio") == 0.125
    assert watched.value("slimfleet_checkpoint_bytes") == 1_000
    assert watched.value("slimfleet_checkpoint_timestamp_seconds") == 1234.5


def test_a_scrape_does_not_grow_with_the_devices_or_with_what_they_call_themselves(watched):
    for device in range(200):
        watched.metrics.spent(f"class-{device % 10}", cost(), "measured")
    before = len(watched.lines())
    for device in range(10_000):
        watched.metrics.task(f"class-{device % 10}", "ok")
    assert len(watched.lines()) == before
    for device in range(100):
        watched.metrics.task(f"invented-{device}", "ok")
        watched.metrics.task("\n{" * device, "ok")
    pattern = re.compile(r'device_class="([^"]*)"')
    classes = {match for line in watched.lines() for match in pattern.findall(line)}
    assert len(classes) == MOST_DEVICE_CLASSES + 1
    assert "other" in classes


def test_the_exposition_parses_and_holds_the_table_and_nothing_else(watched):
    watched.metrics.task("pi", "ok")
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
    fleet_metrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        fleet_metrics(registry)


def test_the_null_object_has_every_method_of_the_exporter():
    def methods(kind):
        return {
            name: inspect.signature(function)
            for name, function in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert isinstance(fleet_metrics(None), NoMetrics)
    assert methods(NoMetrics) == methods(FleetMetrics) == methods(Metrics)


def test_the_coordinator_needs_no_prometheus_client():
    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from slimfleet.coordinator.observing.prometheus import fleet_metrics, serve_metrics\n"
        "fleet_metrics(None).round_started(1)\n"
        "try:\n    serve_metrics(0)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.startswith("BadInput a metrics port needs prometheus-client")


def test_metrics_are_served_until_closed():
    metrics, server = serve_metrics(0, federation="served")
    metrics.round_started(3)
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
