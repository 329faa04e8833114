"""A real Prometheus scrapes a real exporter, and its query API has what the fleet did."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import replace

import pytest

from slimfleet.compression import Cost, Evaluation, Report
from slimfleet.coordinator import Answer, Closed, Dispatch
from slimfleet.coordinator.observing.prometheus import serve_metrics
from slimfleet.simulations import InProcess, load_scenario

PROMETHEUS = shutil.which("prometheus")
PATIENCE_S = 60
WIRE_BYTES = 400
FLEET = {
    "fleet.devices": "5", "selection.per_round": "5", "selection.battery_floor": "0.0",
    "fleet.mix": "{pi_5 = 1}", "fleet.availability": "1.0", "fleet.dropout": "0.0",
}  # fmt: skip

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: slimfleet-coordinator
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@pytest.fixture
def exporter():
    metrics, server = serve_metrics(0, federation="field-test")
    yield metrics, server
    server.close()


@pytest.fixture
def prometheus(exporter, tmp_path):
    """Address of a Prometheus on loopback that scrapes the exporter every second."""
    _, server = exporter
    config = tmp_path / "prometheus.yml"
    config.write_text(CONFIG.format(port=server.port))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    log = (tmp_path / "prometheus.log").open("wb")
    process = subprocess.Popen(
        [
            PROMETHEUS,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)
        log.close()


@pytest.mark.skipif(
    PROMETHEUS is None,
    reason="NOT CHECKED AGAINST A REAL PROMETHEUS: apt-get install prometheus puts it on the PATH",
)
@pytest.mark.timeout(3 * PATIENCE_S)
def test_prometheus_scrapes_what_the_fleet_did(exporter, prometheus):
    metrics, _ = exporter
    federation = InProcess.of(load_scenario("digits", FLEET))
    planned = federation.plan()
    metrics(planned)
    (device_class,) = {record.profile.device_class for record in federation.coordinator.state.registry}
    eventually(prometheus, f'slimfleet_client_tasks_total{{device_class="{device_class}", outcome="ok"}}', 0)

    *honest, hostile = planned.dispatches
    assert len(honest) == 4
    answers = [answer_of(dispatch) for dispatch in honest]
    answers.append(Answer(dispatch=hostile, verdict="rejected", reason="norm"))
    raw_bytes = sum(dispatch.index_map.schema.nbytes for dispatch in honest)
    row = replace(federation.step().row, completed=4, applied=True)
    metrics(
        Closed(
            row=row,
            answers=tuple(answers),
            evaluation=Evaluation(loss=0.4, accuracy=0.875),
            seconds={},
            settings=planned.settings,
            state=planned.state,
        )
    )

    eventually(prometheus, "slimfleet_rounds_total{outcome='completed', federation='field-test'}", 1)
    eventually(
        prometheus, "sum(slimfleet_client_energy_joules_total{component='compute', source='measured'})", 40
    )
    eventually(
        prometheus,
        "sum(slimfleet_update_bytes_total{direction='uplink', stage='raw'})"
        " / sum(slimfleet_update_bytes_total{direction='uplink', stage='wire'})",
        raw_bytes / (4 * WIRE_BYTES),
    )
    eventually(
        prometheus, "histogram_quantile(0.5, sum by (le) (slimfleet_client_task_duration_seconds_bucket))", 45
    )
    eventually(prometheus, "slimfleet_updates_rejected_total{reason='norm'}", 1)
    eventually(prometheus, "slimfleet_model_accuracy_ratio{split='validation'}", 0.875)
    # The series existed before the first task, so the increase is not lost.
    eventually(prometheus, "increase(slimfleet_client_tasks_total{outcome='ok'}[1m]) > bool 0", 1)
    eventually(prometheus, "up{job='slimfleet-coordinator'}", 1)


def answer_of(dispatch: Dispatch) -> Answer:
    """A device did its work in 40 s for 12 J, 2 J of which were the radio's."""
    cost = Cost(
        energy_j=12, radio_j=2, time_s=40, memory_bytes=1, uplink_bytes=WIRE_BYTES, downlink_bytes=9_000
    )
    report = Report(spent=cost, source="measured", loss=0.5, examples=8, steps=4)
    return Answer(dispatch=dispatch, verdict="accepted", report=report, received_bytes=WIRE_BYTES)


def eventually(address, expression, expected):
    """Ask until the one series answered has the expected value; fail with the last answer in the end."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    end, answer = time.monotonic() + PATIENCE_S, "no answer"
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                answer = json.load(response)
            values = [float(series["value"][1]) for series in answer["data"]["result"]]
            if values == [pytest.approx(expected)]:
                return
        except OSError as error:  # not up yet
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            answer = repr(error)
        time.sleep(0.2)
    pytest.fail(f"{expression} is not {expected} after {PATIENCE_S} s, but {answer}")
