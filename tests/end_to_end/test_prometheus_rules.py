"""The rules in deploy/prometheus by Prometheus' own tool, and against the table of what the coordinator exports."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from slimfleet.coordinator.observing.prometheus.names import METRICS, OPEN

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = (FOLDER / "rules.yml").read_text()
PROMTOOL = shutil.which("promtool")
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
EXPORTED = {metric.name + suffix: metric for metric in METRICS for suffix in SUFFIXES[metric.kind]}


@pytest.mark.skipif(
    PROMTOOL is None, reason="RULES NOT CHECKED BY PROMTOOL: apt-get install prometheus puts it on the PATH"
)
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "--lint=all", "--lint-fatal", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([PROMTOOL, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def words(text: str) -> set[str]:
    """Whatever may be the name of a metric of ours."""
    return set(re.findall(r"[\w:]*slimfleet_\w+(?::\w+)*", text))


def test_every_metric_in_the_rules_is_exported_or_recorded() -> None:
    recorded = set(re.findall(r"record: (\S+)", RULES))
    assert len(recorded) == 6
    raw = words(RULES) - recorded
    assert len(raw) > 10
    assert sorted(raw - EXPORTED.keys()) == []


def test_every_label_in_the_rules_exists_with_these_values() -> None:
    selectors = re.findall(r"\b(slimfleet_\w+)\{([^}]*)\}", RULES)
    assert len(selectors) > 5
    for name, matchers in selectors:
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            allowed = EXPORTED[name].labels[label]
            assert allowed is OPEN or set(values.split("|")) <= set(allowed), (name, label)


def test_every_alert_is_shown_firing_and_silent() -> None:
    tests = (FOLDER / "rules_test.yml").read_text()
    for alert in re.findall(r"alert: (\w+)", RULES):
        shown = re.findall(rf"alertname: {alert}[\s,]+exp_alerts:( \[\])?", tests)
        assert set(shown) == {"", " []"}, alert
