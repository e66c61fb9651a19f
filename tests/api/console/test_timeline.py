"""`/models/{name}/timeline`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.histories import BETTER, GOOD, History
from tests.support.training_app import Service


@pytest.fixture
def history(service: Service, tmp_path: Path) -> History:
    return History(service.gateway.registry, tmp_path)


def test_entries_lead_to_their_reports(service: Service, history: History) -> None:
    old, new = history.publish(promote=True), history.publish()
    rows = [history.evaluate(old, GOOD), history.evaluate(new, BETTER)]
    assert history.judge(rows[1], rows[0])
    [entry] = service.get("/models/signs/timeline?limit=1")["entries"]
    assert entry["kind"] == "promoted"
    assert entry["report_url"] == f"/metrics/{new.id}/report.html?evaluation={rows[1].id}"
    report = service.get(entry["report_url"].replace(".html", ""))
    assert report["evaluation"] == rows[1].id
    assert entry["compare_url"] == f"/metrics/compare?a={old.id}&b={new.id}".replace(":", "%3A")


def test_pages_and_filters(service: Service, history: History) -> None:
    for _ in range(3):
        history.registry.activate(history.publish().id)
    first = service.get("/models/signs/timeline?kind=activated&kind=deleted&limit=2")
    assert [entry["kind"] for entry in first["entries"]] == ["activated"] * 2
    path = f"/models/signs/timeline?kind=activated&before={first['before']}"
    rest = service.get(path)
    assert len(rest["entries"]) == 1
    assert rest["before"] is None
    for wrong in ("kind=cooking", "before=x", "limit=0", "limit=201"):
        answer = service.call(service.app, "GET", f"/models/signs/timeline?{wrong}")
        assert answer.status_code == 400, wrong
    assert service.call(service.app, "GET", "/models/cars/timeline").status_code == 404
