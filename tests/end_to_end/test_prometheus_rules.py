"""The rules in deploy/prometheus and the queries in deploy/grafana, by Prometheus' own tool and against what the
coordinator exports."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from slimfleet.coordinator.observing.prometheus.names import METRICS, OPEN

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = (FOLDER / "rules.yml").read_text()
DASHBOARD = json.loads((FOLDER.parent / "grafana" / "slimfleet.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
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
    assert len(recorded) == 8
    raw = words(RULES) - recorded
    assert len(raw) > 10
    assert sorted(raw - EXPORTED.keys()) == []


def test_every_label_in_the_rules_exists_with_these_values() -> None:
    in_rules, in_queries = (
        re.findall(r"\b(slimfleet_\w+)\{([^}]*)\}", text) for text in (RULES, "\n".join(QUERIES))
    )
    assert len(in_rules) > 5
    assert len(in_queries) >= len(QUERIES)
    for name, matchers in (*in_rules, *in_queries):
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
            if label == "federation":
                continue
            allowed = EXPORTED[name].labels[label]
            assert allowed is OPEN or set(values.split("|")) <= set(allowed), (name, label)


def test_every_alert_is_shown_firing_and_silent() -> None:
    tests = (FOLDER / "rules_test.yml").read_text()
    for alert in re.findall(r"alert: (\w+)", RULES):
        shown = re.findall(rf"alertname: {alert}[\s,]+exp_alerts:( \[\])?", tests)
        assert set(shown) == {"", " []"}, alert


def test_every_query_of_the_dashboard_is_of_what_is_exported(tmp_path: Path) -> None:
    assert sorted(words(" ".join(QUERIES)) - EXPORTED.keys()) == []
    for query, target in zip(QUERIES, (t for p in DASHBOARD["panels"] for t in p["targets"]), strict=True):
        names = [name for name in EXPORTED if re.search(rf"\b{name}\b", query)]
        known = {label for name in names for label in EXPORTED[name].labels}
        shown = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        grouped = re.findall(r"by \(([\w, ]+)\)", query)
        assert {*shown, *(g for each in grouped for g in each.split(", "))} <= known | {"le"}, query
    if PROMTOOL is None:
        pytest.skip("QUERIES NOT CHECKED BY PROMTOOL: apt-get install prometheus puts it on the PATH")
    rules = [
        {"record": f"query:slimfleet:{number}", "expr": query.replace("$federation", ".*")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_of_the_dashboard_do_not_overlap_and_have_names_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    boxes = [panel["gridPos"] for panel in panels]
    for one, other in itertools.combinations(boxes, 2):
        apart = (
            one[axis] + one[size] <= other[axis] or other[axis] + other[size] <= one[axis]
            for axis, size in (("x", "w"), ("y", "h"))
        )
        assert any(apart), (one, other)
    for panel in panels:
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
