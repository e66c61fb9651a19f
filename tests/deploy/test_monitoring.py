"""Alert rules, dashboard and scrape configuration name what the server exposes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs_reference.error_page import errors
from docs_reference.metric_page import series
from jobs.states import STATUSES
from source_tree import ROOT
from tests.deploy.queries import Selector, grouped, selectors

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "visionloop.json"
PROMETHEUS_ADDS = {"instance", "job"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
WORDS = {
    "code": set(re.findall(r"^\| `(\w+)`", errors(), re.MULTILINE)),
    "route": {"/infer"},
    "runner": {"detector", "annotator"},
    "stage": {"preprocess", "inference", "postprocess"},
    "outcome": {"delivered", "retried", "failed"},
}
"""Values of labels that queries may name."""

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (apt-get install prometheus): rules are not checked",
)


@lru_cache
def exposed() -> dict[str, set[str]]:
    """The labels of each series that a scrape has, by its name."""
    found = {}
    for one in series():
        for suffix in SUFFIXES[one.kind]:
            bucket = {"le"} if suffix == "_bucket" else set()
            found[one.name + suffix] = {*one.labels} | bucket | PROMETHEUS_ADDS
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def panel_queries() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of each query of the dashboard."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


def expressions() -> list[tuple[str, str]]:
    """A name and an expression of each query: of alerts, panels, variables and annotations."""
    board = dashboard()
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    found += [(title, expression) for title, expression, _ in panel_queries()]
    found += [(one["name"], str(one["query"])) for one in board["templating"]["list"]]
    return found


def fault(selector: Selector, known: dict[str, set[str]]) -> str | None:
    """What is wrong with a series that an expression names; None if nothing is."""
    if selector.name not in known:
        return f"no metric {selector.name}"
    for label, operator, value in selector.matchers:
        if label not in known[selector.name]:
            return f"{selector.name} has no label {label}"
        words = {"status": set(STATUSES)} if selector.name == "visionloop_jobs" else {}
        words |= WORDS
        if not value.startswith("$") and label in words:
            values = value.split("|") if operator in ("=~", "!~") else [value]
            if unknown := set(values) - words[label]:
                return f"no {label} {unknown}"
    return None


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_a_query_names_what_the_server_exposes(name: str, expression: str) -> None:
    known = exposed()
    found = list(selectors(expression))
    assert [fault(one, known) for one in found if fault(one, known)] == []
    labels = set().union(*(known[one.name] for one in found))
    assert grouped(expression) <= labels


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("visionloop_queue_lenght", "no metric visionloop_queue_lenght"),
        ('visionloop_queue_length{model="a"}', "visionloop_queue_length has no label model"),
        ('visionloop_errors_total{code="OOPS"}', "no code {'OOPS'}"),
        ('visionloop_jobs{status=~"failed|lost"}', "no status {'lost'}"),
        ('visionloop_queue_length{runner="detector", instance=~"$instance"}', None),
        ("visionloop_request_seconds", "no metric visionloop_request_seconds"),
    ],
)
def test_a_wrong_name_is_noticed(expression: str, expected: str | None) -> None:
    (selector,) = selectors(expression)
    assert fault(selector, exposed()) == expected


def test_each_alert_says_what_is_wrong_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "runbook"}, rule["alert"]
        assert all(text.strip().endswith(".") for text in rule["annotations"].values())


def test_each_alert_has_a_test_in_which_it_fires() -> None:
    tests = yaml.safe_load((RULES.parent / "tests" / "alerts.yaml").read_text())["tests"]
    fires = {
        found[1]
        for test in tests
        for one in test["promql_expr_test"]
        if one["exp_samples"]
        and (found := re.search(r'alertname="(\w+)", alertstate="firing"', one["expr"]))
    }
    assert fires == {rule["alert"] for rule in rules()}


@promtool
def test_alerts_fire_when_they_must_and_only_then() -> None:
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "tests/alerts.yaml"]):
        ran = subprocess.run(
            ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


@promtool
def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression, _) in enumerate(panel_queries())
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    ran = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@promtool
def test_prometheus_takes_the_scrape_configuration(tmp_path: Path) -> None:
    text = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    assert "/etc/prometheus/alerts.yaml" in text
    (tmp_path / "token").write_text("secret")
    text = text.replace("/etc/prometheus/alerts.yaml", str(RULES))
    text = text.replace("/run/secrets/visionloop_token", str(tmp_path / "token"))
    (tmp_path / "prometheus.yaml").write_text(text)
    ran = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"SUCCESS: {len(rules())} rules found" in ran.stdout


def test_legends_name_labels_that_their_queries_keep() -> None:
    known = exposed()
    for title, expression, legend in panel_queries():
        shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
        kept = grouped(expression) or set().union(
            *(known[one.name] for one in selectors(expression))
        )
        assert shown <= kept, title


def test_panels_have_places_of_their_own_and_follow_the_variables() -> None:
    board = dashboard()
    names = {one["name"] for one in board["templating"]["list"]}
    assert {"datasource", "instance", "model"} <= names
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            for one in selectors(target["expr"]):
                matched = {label: value for label, _, value in one.matchers}
                assert matched["instance"] == "$instance", panel["title"]
                if "model" in exposed()[one.name] and panel["title"] != "Loaded models":
                    assert matched["model"] == "$model", panel["title"]


def test_a_new_metric_is_drawn_or_left_out_on_purpose() -> None:
    drawn = {one.name for _, text, _ in panel_queries() for one in selectors(text)}
    drawn = {re.sub("_(bucket|sum|count)$", "", name) for name in drawn}
    left_out = {one.name for one in series()} - drawn
    assert left_out == {
        "visionloop_backup_last_success_timestamp_seconds",  # alerts say it
        "visionloop_disk_size_bytes",
        "visionloop_kept_images",
        "visionloop_leader",  # an alert says it
        "visionloop_model_last_use_timestamp_seconds",  # decides when series end
        "visionloop_predictions_total",
        "visionloop_shadow_objects_total",
        "visionloop_shadow_seconds",
        "visionloop_shadow_seen_total",
    }
