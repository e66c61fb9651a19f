"""`/jobs`: the history of a job's metrics, what it still takes, its place in the queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from jobs.logs.log_file import LogWriter
from tests.support.training_app import UNKNOWN, Service


def test_the_history_has_each_epoch_in_pages(service: Service) -> None:
    job = service.start()
    claim = service.run(job)
    for epoch in range(1, 6):
        metrics = {"loss": 1 / epoch, "mAP50": None, "forgotten": 0.5}
        service.jobs.add_epoch(job.id, claim, epoch, 1.5, metrics)
    path = f"/jobs/{job.id[:12]}/metrics/history"
    found = service.get(path)
    assert (found["job_id"], found["total_epochs"], found["next_after"]) == (job.id, 50, None)
    assert [one["epoch"] for one in found["epochs"]] == [1, 2, 3, 4, 5]
    first = found["epochs"][0]
    assert first["seconds"] == 1.5
    assert first["metrics"] == {"forgotten": 0.5, "loss": 1.0, "mAP50": None}
    assert next(iter(first["metrics"])) == "forgotten"  # what an incremental training is about
    page = service.get(path, params={"limit": 2})
    assert ([one["epoch"] for one in page["epochs"]], page["next_after"]) == ([1, 2], 2)
    page = service.get(path, params={"limit": 2, "after": 4})
    assert ([one["epoch"] for one in page["epochs"]], page["next_after"]) == ([5], None)


def test_a_history_that_is_not_there(service: Service) -> None:
    job = service.start()
    assert service.get(f"/jobs/{job.id}/metrics/history")["epochs"] == []
    for path, status in (
        (f"/jobs/{UNKNOWN}/metrics/history", 404),
        (f"/jobs/{job.id}/metrics/history?after=-1", 400),
        (f"/jobs/{job.id}/metrics/history?limit=0", 400),
        (f"/jobs/{job.id}/metrics/history?limit=1001", 400),
        (f"/jobs/{job.id}/metrics/history?since=1", 400),
    ):
        answer = service.call(service.app, "GET", path)
        assert answer.status_code == status, answer.text


def test_a_running_job_says_what_it_still_takes_one_that_waits_its_place(service: Service) -> None:
    running, first, second = (service.start() for _ in range(3))
    claim = service.run(running)
    service.jobs.note(running.id, claim, batch=3, batches=9, eta_seconds=90.0)
    shown = service.get(f"/jobs/{running.id}")
    assert (shown["batch"], shown["batches"], shown["queue_position"]) == (3, 9, None)
    assert 80 < shown["eta_s"] <= 90
    assert service.get(f"/jobs/{second.id}")["queue_position"] == 2
    listed = {job["job_id"]: job for job in service.get("/jobs")["jobs"]}
    assert [listed[job.id]["queue_position"] for job in (running, first, second)] == [None, 1, 2]
    assert 80 < listed[running.id]["eta_s"] <= 90
    assert listed[first.id]["eta_s"] is None

    earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    service.jobs.note(running.id, claim, eta_seconds=5.0)
    with service.jobs.database.write() as session:
        row = service.jobs.get(running.id)
        row.updated_at = earlier
        session.merge(row)
    assert service.get(f"/jobs/{running.id}")["eta_s"] == 0
    service.jobs.finish(running.id, "completed")
    assert service.get(f"/jobs/{running.id}")["eta_s"] is None


def test_the_last_lines_of_a_log_can_be_asked_for(service: Service) -> None:
    job = service.start()
    writer = LogWriter(service.jobs.log(job.id))
    for number in range(9):
        writer.say(f"line {number}")
    path = f"/jobs/{job.id}/logs"
    assert len(service.get(path)["logs"]) > 9
    last = service.get(path, params={"lines": 2})["logs"]
    assert [line.rpartition("] ")[2] for line in last] == ["line 7", "line 8"]
    assert service.call(service.app, "GET", f"{path}?lines=0").status_code == 400
