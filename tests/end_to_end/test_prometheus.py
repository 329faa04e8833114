"""A real Prometheus scrapes a real exporter, and its query API has what the fleet did."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from slimfleet.compression.types import Cost
from slimfleet.coordinator.observing.prometheus import serve_metrics

PROMETHEUS = shutil.which("prometheus")
PATIENCE_S = 60

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
    cost = Cost(energy_j=12, radio_j=2, time_s=40, memory_bytes=1, uplink_bytes=4_000, downlink_bytes=9_000)
    metrics.run_started()
    metrics.round_started(1)
    metrics.clients("raspberry-pi", "available", 5)
    eventually(prometheus, 'slimfleet_client_tasks_total{device_class="raspberry-pi", outcome="ok"}', 0)
    for _ in range(4):
        metrics.spent("raspberry-pi", cost, "measured")
        metrics.transferred("raspberry-pi", "uplink", 400_000, 4_000)
        metrics.task("raspberry-pi", "ok")
    metrics.rejected("norm")
    metrics.evaluated("validation", 0.4, 0.875)
    metrics.round_finished("completed")

    eventually(prometheus, "slimfleet_rounds_total{outcome='completed', federation='field-test'}", 1)
    eventually(
        prometheus, "sum(slimfleet_client_energy_joules_total{component='compute', source='measured'})", 40
    )
    eventually(
        prometheus,
        "sum(slimfleet_update_bytes_total{stage='raw'}) / sum(slimfleet_update_bytes_total{stage='wire'})",
        100,
    )
    eventually(
        prometheus, "histogram_quantile(0.5, sum by (le) (slimfleet_client_task_duration_seconds_bucket))", 45
    )
    eventually(prometheus, "slimfleet_updates_rejected_total{reason='norm'}", 1)
    eventually(prometheus, "slimfleet_model_accuracy_ratio{split='validation'}", 0.875)
    # The series existed before the first task, so the increase is not lost.
    eventually(prometheus, "increase(slimfleet_client_tasks_total{outcome='ok'}[1m]) > bool 0", 1)
    eventually(prometheus, "up{job='slimfleet-coordinator'}", 1)


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
