"""`visionloop datasets` and `visionloop jobs`, asked of the application over HTTP."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.routes import jobs as routes
from commands import datasets, jobs
from jobs.claims import HOST
from shell import moment
from tests.support.dispatching import CLAIM
from tests.support.served_app import served
from tests.support.shapes import write_shapes
from tests.support.training_app import Service
from training import __main__ as training

Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def command(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """A command line; returns the exit code, stdout and stderr."""

    def run(line: str) -> tuple[int, str, str]:
        word, *rest = line.split()
        code = {"datasets": datasets.main, "jobs": jobs.main, "training": training.main}[word](rest)
        read = capsys.readouterr()
        return code, read.out, read.err

    with served(service.app) as url:
        monkeypatch.setenv("VISIONLOOP_URL", url)
        yield run


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "shapes", "detect", 4, 2, 48)
    return Path(shutil.make_archive(str(tmp_path / "shapes"), "zip", tmp_path / "shapes"))


def test_a_dataset_from_its_upload_to_its_end(
    command: Command, packed: Path, tmp_path: Path
) -> None:
    assert command("datasets list")[1].startswith("No datasets yet.")
    code, text, _ = command(f"datasets upload {packed} --name shapes --task detect")
    assert code == 0
    assert "4 of 4 images" in text
    [card] = json.loads(command("datasets list --json")[1])
    heading, row = command("datasets list")[1].splitlines()
    assert heading.split() == [
        "DATASET", "NAME", "TASK", "CLASSES", "IMAGES", "SIZE", "CREATED",
    ]  # fmt: skip
    assert row.split()[:5] == [card["id"], "shapes", "detect", str(len(card["classes"])), "6"]
    code, text, _ = command(f"datasets show {card['id']} --json")
    assert (code, json.loads(text)) == (0, card)
    assert card["fingerprint"] in command(f"datasets check {card['id']}")[1]
    code, text, _ = command(f"datasets export {card['id']} {tmp_path}/out.zip --format coco --json")
    assert json.loads(text) == {
        "path": f"{tmp_path}/out.zip",
        "bytes": (tmp_path / "out.zip").stat().st_size,
    }
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert any(name.endswith(".json") for name in archive.namelist())
    code, _, error = command(f"datasets export {card['id']} {tmp_path}/out.zip")
    assert (code, error) == (
        1,
        f"error: {tmp_path}/out.zip exists already; --force overwrites it.\n",
    )
    assert command(f"datasets export {card['id']} {tmp_path}/out.zip --force --no-images")[0] == 0
    (tmp_path / "folder").mkdir()
    code, text, _ = command(f"datasets export {card['id']} {tmp_path}/folder")
    assert len(list((tmp_path / "folder").glob("*.zip"))) == 1
    assert command(f"datasets delete {card['id']}")[1] == f"Dataset {card['id']} is deleted.\n"
    assert json.loads(command("datasets list --json")[1]) == []


def test_a_folder_is_packed_as_for_a_training(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shapes(tmp_path / "shapes", "detect", 4, 2, 48)
    (tmp_path / "shapes" / "notes.docx").touch()
    monkeypatch.chdir(tmp_path)
    code, text, said = command("datasets upload shapes --json")
    assert code == 0
    card = json.loads(text)
    assert (card["name"], card["splits"]["train"]["images"]) == ("shapes", 4)
    assert said.startswith("Uploading shapes (13 files, ")
    assert said.endswith("left out: 1 .docx) ...\n")
    code, text, _ = command("datasets upload shapes/data.yaml --json")
    assert (code, json.loads(text)["name"]) == (0, "shapes")
    code, text, _ = command("training start regular --no-watch --model n --data shapes")
    assert code == 0
    assert "shapes was uploaded before: dataset shapes-" in text
    (tmp_path / "empty").mkdir()
    code, _, error = command("datasets upload empty")
    assert code == 1
    assert error.startswith("error: empty cannot be uploaded: There are no images in ")


def test_a_model_that_is_not_there_is_said_before_the_upload(
    command: Command, packed: Path
) -> None:
    line = f"training start regular --no-watch --data {packed}"
    code, text, error = command(f"{line} --model signz")
    assert (code, text) == (1, "")
    assert error.startswith("error: No model 'signz'")
    assert json.loads(command("datasets list --json")[1]) == []
    for other in ("yolo99n", "abcd", "weights/none.pt"):  # the server knows about these
        assert command(f"{line} --model {other}")[0] == 1
    assert len(json.loads(command("datasets list --json")[1])) == 1


def test_what_cannot_be_trained_on_is_code_1(command: Command, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    code, _, error = command(f"datasets upload {tmp_path}/bad.zip")
    assert code == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("datasets show ../models", "'../models' is no dataset's id."),
        ("datasets show nothing-here", "No dataset 'nothing-here'"),
        ("datasets export nothing-here", "No dataset 'nothing-here'"),
        ("datasets check /etc", "outside the folders this server may read"),
        ("datasets check /etc", " From here: visionloop datasets upload /etc"),
        ("datasets check signs.zip", f"There is no file signs.zip in {Path.cwd()}; the server"),
        (
            "datasets upload /nowhere.zip",
            "There is no /nowhere.zip. Name a zip, a folder or a data",
        ),
        (
            "training start regular --data signs.zip",
            f"There is no file signs.zip in {Path.cwd()}; ",
        ),
        ("training start regular --data signs.zip", "; the server answers: No dataset 'signs.zip'"),
        (
            "training start regular --data sub/signs",
            f"There is no folder sub/signs in {Path.cwd()}",
        ),
        ("training start regular --data /etc/data.yaml", "no file /etc/data.yaml on this machine"),
        ("training start regular --data nothing-here", "error: No dataset 'nothing-here'"),
        ("jobs show f9f9", "No job 'f9f9'"),
        ("jobs list --kind cooking", "'kind' must be one of"),
    ],
)
def test_refusals_are_one_line(command: Command, line: str, words: str) -> None:
    code, _, error = command(line)
    assert code == 1
    assert words in error
    assert error.count("\n") == 1


def test_jobs_of_every_kind_with_their_sizes(command: Command, service: Service) -> None:
    store = service.gateway.jobs
    training = store.create("training", config={}, recipe={}, mode="regular", task="detect")
    other = store.create("evaluation", config={"dataset": "x"}, recipe={})
    (store.folder(other.id) / "report").write_bytes(bytes(123_456))
    (store.folder(other.id) / "data").mkdir()
    (store.folder(other.id) / "data" / "view").write_bytes(bytes(999_999))
    heading, first, second = command("jobs list")[1].splitlines()
    assert heading.split()[-5:] == ["RUNS", "ON", "AGE", "SIZE", "RESULT"]
    assert first.split()[0] == other.id[: len(first.split()[0])]
    assert "123.5 kB" in first
    assert "regular" in second
    assert [
        job["job_id"] for job in json.loads(command("jobs list --kind training --json")[1])
    ] == [training.id]
    code, text, _ = command(f"jobs show {other.id[:8]} --json")
    assert (code, json.loads(text)["size_bytes"]) == (0, 123_456)
    assert re.search(r'^config +{"dataset": "x"}$', command(f"jobs show {other.id}")[1], re.M)
    assert command(f"jobs cancel {other.id}")[1] == f"Job {other.id} is stopped.\n"
    assert command(f"jobs delete {other.id}")[1] == f"Job {other.id} is deleted.\n"
    assert not store.folder(other.id).exists()


def test_jobs_say_where_they_run_and_what_holds_them_up(
    command: Command, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = service.gateway.jobs
    running = store.create("training", config={}, recipe={})
    service.run(running)
    interrupted, waiting = (store.create("training", config={}, recipe={}) for _ in range(2))
    for job, outage in ((interrupted, False), (waiting, True)):
        service.run(job)
        store.requeue(job.id, False, CLAIM, "The service was killed.", outage=outage)
    since = store.get(waiting.id).outage_since
    assert since is not None
    third, second, first = command("jobs list")[1].splitlines()[1:]
    assert f"  {HOST}  " in first
    assert " was interrupted at " in second
    assert second.endswith(" UTC: The service was killed.")
    assert third.endswith(f"  waits for the database or the object store since {moment(since)}")
    shown = command(f"jobs show {interrupted.id}")[1]
    assert re.search(
        "^interruption +was interrupted at .* UTC: The service was killed.$", shown, re.M
    )
    leads = {"server": "gpu-2", "since": "2026-12-01T08:30:00.000+00:00"}
    monkeypatch.setattr(routes, "leader", lambda _: leads)
    listed = command("jobs list")[1]
    assert listed.endswith("\n\ngpu-2 starts the jobs, since 2026-12-01 08:30 UTC.\n")
    assert "gpu-2" not in command("jobs list --json")[1], "still a list of jobs"
