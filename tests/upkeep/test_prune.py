"""Pruning: a dry run changes nothing, what is in use stays, and the bytes are those freed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import update

from access.audit import AuditLog
from annotation.datasets import AnnotatedDatasets, batch_source
from annotation.tables import AnnotatedDataset
from database import State
from files import PARTIAL, atomic_path
from inference.cpu.engine_choice import choice_folder
from jobs.job import Job
from monitoring.kept_images import KeptImages
from monitoring.last_backup import BACKUP
from monitoring.shadow_store import ShadowStore
from settings import Settings, get_settings
from tests.support.furnished_home import Furnished, furnished
from upkeep.__main__ import main
from upkeep.kinds import KINDS, Kind
from upkeep.prune import Limits, Plan, Stores, delete, freed_by, plan
from upkeep.restore import ASIDE
from upkeep.storage import opened

NOW = timedelta(0)
OLD = time.time() - 7200


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Furnished]:
    made = furnished(tmp_path / "server")
    yield made
    made.database.close()


@pytest.fixture
def stores(home: Furnished) -> Stores:
    return Stores(
        home.registry,
        home.jobs,
        home.evaluations,
        AnnotatedDatasets(home.database),
        KeptImages(home.settings),
    )


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def ids(found: Plan) -> list[str]:
    return [item.id for item in found.items]


def planned(stores: Stores, *kinds: Kind, keep: int = 1) -> Plan:
    return plan(stores, kinds, Limits(keep, NOW))


def test_the_newest_versions_stay(home: Furnished, stores: Stores) -> None:
    versions = [home.publish() for _ in range(4)]
    other = home.publish("other")
    found = planned(stores, "models", keep=2)
    assert ids(found) == versions[1::-1]
    evaluation = home.evaluate(versions[0])
    delete(found)
    left = {model.id for model in home.registry.list()}
    assert left == {*versions[2:], other}
    assert not (home.settings.paths.evaluations / evaluation).exists()
    assert ids(planned(stores, "models", keep=2)) == []


def test_what_is_used_stays_and_is_said(home: Furnished, stores: Stores) -> None:
    names = ("best", "base", "teacher", "shadowed", "serving", "unused")
    named = {name: home.publish(name) for name in names}
    for name in names:
        home.publish(name)  # the newest, which stays anyway
    registry = home.registry
    registry.promote(named["best"])
    registry.activate(named["serving"])
    base = home.job("running", base={"kind": "model", "value": named["base"]})
    teacher = home.job("queued", teacher={"kind": "model", "value": named["teacher"]})
    ShadowStore(home.database).begin(named["shadowed"], None, 0.5, False)
    found = planned(stores, "models")
    assert {one.id: one.reason for one in found.kept} == {
        named["best"]: "promoted",
        named["serving"]: "active",
        named["base"]: f"the job {base} uses it",
        named["teacher"]: f"the job {teacher} uses it",
        named["shadowed"]: "takes part in the shadow deployment",
    }
    assert ids(found) == [named["unused"]]


def test_a_rollback_stays_possible(home: Furnished, stores: Stores) -> None:
    first, second, third = (home.publish(promote=True) for _ in range(3))
    home.publish()
    found = planned(stores, "models")
    assert {one.id: one.reason for one in found.kept} == {
        third: "promoted",
        second: "`rollback signs` would promote it",
    }
    assert ids(found) == [first]
    delete(found)
    assert home.registry.rollback("signs").id == second


def test_a_version_promoted_after_the_plan_stays(home: Furnished, stores: Stores) -> None:
    first, _ = home.publish(), home.publish()
    found = planned(stores, "models")
    home.registry.promote(first)
    assert delete(found) == []
    assert [one.reason for one in found.kept] == [
        f"{first} has been promoted or activated meanwhile."
    ]
    assert home.registry.get(first)


def test_jobs_that_ended_long_ago(home: Furnished, stores: Stores) -> None:
    running, waiting = home.job("running"), home.job("queued")
    old, base, young = home.job("completed"), home.job("failed"), home.job("stopped")
    home.job("queued", base={"kind": "job", "value": base})
    with home.database.write() as session:
        at = {"finished_at": "2999-01-01T00:00:00.000+00:00"}
        session.execute(update(Job).where(Job.id == young).values(**at))
    found = planned(stores, "jobs")
    assert ids(found) == [old]
    assert [one.id for one in found.kept] == [base]
    assert [item.id for item in delete(found)] == [old]
    assert {job.id for job in home.jobs.list()} >= {running, waiting, base, young}
    assert not home.jobs.folder(old).exists()


def test_what_is_freed_is_what_is_free_afterwards(home: Furnished, stores: Stores) -> None:
    job = home.job("completed")
    folder = home.jobs.folder(job)
    (folder / "big").write_bytes(bytes(5000))
    os.link(folder / "big", folder / "twin")
    (folder / "shared").write_bytes(bytes(7000))
    os.link(folder / "shared", home.settings.home / "elsewhere")
    (folder / "link").symlink_to(home.settings.home / "elsewhere")
    small = sum((folder / name).stat().st_size for name in ("log", "checkpoints/last.pt"))
    assert freed_by(folder) == 5000 + small + (folder / "checkpoints/state.json").stat().st_size
    assert planned(stores, "jobs").bytes == freed_by(folder)


def test_old_exports(home: Furnished, stores: Stores) -> None:
    model = home.publish()
    name, version = model.split(":")
    folder = home.settings.paths.exports / name / version
    for number, export in enumerate(("old", "new", f"{PARTIAL}x")):
        (folder / export).mkdir(parents=True)
        (folder / export / "file").write_bytes(bytes(1000))
        if number != 1:
            os.utime(folder / export, (OLD, OLD))
    found = plan(stores, ("exports",), Limits(1, timedelta(hours=1)))
    assert [(item.id, item.bytes) for item in found.items] == [(f"{model}/old", 1000)]
    delete(found)
    assert sorted(path.name for path in folder.iterdir()) == [f"{PARTIAL}x", "new"]
    home.publish()
    [item] = planned(stores, "models").items
    assert item.bytes > 2000  # with its exports
    delete(plan(stores, ("models",), Limits(1, NOW)))
    assert not folder.exists()


def test_engines_of_another_machine(home: Furnished, stores: Stores) -> None:
    model = stores.registry.get(home.publish())
    present = choice_folder(model.path, stores.registry.settings)
    for folder in (present, present.parent / "old", present.parent / "new"):
        folder.mkdir(parents=True)
        (folder / "choice.json").write_bytes(bytes(500))
        if folder.name != "new":
            os.utime(folder, (OLD, OLD))
    found = plan(stores, ("engines",), Limits(1, timedelta(hours=1)))
    assert [(item.id, item.bytes) for item in found.items] == [(f"{model.id}/old", 500)]
    delete(found)
    assert sorted(path.name for path in present.parent.iterdir()) == sorted([present.name, "new"])


def test_kept_images(home: Furnished, stores: Stores) -> None:
    live = KeptImages(home.settings)  # the server's
    for value in (0, 255):
        image = Image.new("L", (64, 64))
        image.paste(value, (0, 0, 32, 64))
        file = BytesIO()
        image.save(file, "PNG")
        assert live.keep(file.getvalue(), {"model_id": "signs:1"}, 0.2) or value == 0
    count = len(live.list())
    found = planned(stores, "kept")
    assert sorted(ids(found)) == sorted(image.id for image in live.list())
    assert len(delete(found)) == count > 0
    assert live.list() == []  # the server notices
    assert live.size_bytes == 0


def test_uploads_that_no_job_uses(home: Furnished, stores: Stores) -> None:
    uploads = home.settings.paths.uploads
    for name in ("pictures-old", "pictures-used", "pictures-new"):
        (uploads / name).mkdir(parents=True)
        (uploads / name / "a.jpg").write_bytes(bytes(100))
    job = home.jobs.create(
        "annotation", config={}, recipe={"dataset": str(uploads / "pictures-used")}
    )
    for name in ("pictures-old", "pictures-used"):
        os.utime(uploads / name, (OLD, OLD))
    row = stores.annotated.ensure(batch_source("1"), "batch", {}, "batch")
    with home.database.write() as session:
        session.execute(update(AnnotatedDataset).values(created_at="2026-01-01T00:00:00.000+00:00"))
    found = planned(stores, "uploads")
    assert sorted(ids(found)) == sorted([row.id, "pictures-old"])
    delete(found)
    assert sorted(path.name for path in uploads.iterdir()) == ["pictures-new", "pictures-used"]
    assert home.jobs.get(job.id)


def test_thumbnails_that_are_old(home: Furnished, stores: Stores) -> None:
    paths = home.settings.paths
    files = [
        paths.thumbnails / "ab/old.jpg",
        paths.thumbnails / "cd/new.jpg",
        paths.image_index / "set/old.sqlite",
    ]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(100))
        if "old" in file.name:
            os.utime(file, (OLD, OLD))
    limits = Limits(older_than=timedelta(hours=1))
    found = plan(stores, ("thumbnails",), limits)
    assert [(item.id, item.bytes) for item in found.items] == [
        ("thumbnails", 100),
        ("indexes", 100),
    ]
    delete(found)
    assert [file.exists() for file in files] == [False, True, False]


def test_temporary_files_of_killed_processes_only(home: Furnished, stores: Stores) -> None:
    left = home.settings.home / "jobs" / f"{PARTIAL}left"
    left.mkdir(parents=True)
    (left / "file").write_bytes(bytes(1000))
    os.utime(left, (OLD, OLD))
    staged = home.models.home / "visionloop-staging" / "signs-1"
    staged.mkdir(parents=True)
    with atomic_path(home.settings.home / "new") as path:
        path.write_text("being written")
        found = planned(stores, "temporary")
        assert ids(found) == [str(left), "models"]
        assert found.bytes == 1000
        assert len(delete(found)) == 2
    assert (home.settings.home / "new").read_text() == "being written"
    assert not left.exists()
    assert not staged.exists()


def test_what_a_restore_moved_aside(home: Furnished, stores: Stores) -> None:
    (home.settings.home / f"{ASIDE}1" / "jobs").mkdir(parents=True)
    assert ids(plan(stores, ("aside",))) == []  # not old yet
    assert len(delete(planned(stores, "aside"))) == 1
    assert not (home.settings.home / f"{ASIDE}1").exists()


def test_one_that_cannot_be_deleted_does_not_end_it(home: Furnished, stores: Stores) -> None:
    for name in "123":
        (home.settings.home / f"{ASIDE}{name}").mkdir(parents=True)
    found = planned(stores, "aside")
    (home.settings.home / f"{ASIDE}1").rmdir()
    (home.settings.home / f"{ASIDE}2").rmdir()
    (home.settings.home / f"{ASIDE}2").write_text("no folder")  # root may delete everything else
    assert [Path(item.id).name for item in delete(found)] == [f"{ASIDE}3"]
    [kept] = found.kept
    assert kept.id.endswith(f"{ASIDE}2")
    assert "Not a directory" in kept.reason


def test_a_plan_changes_nothing(home: Furnished, stores: Stores) -> None:
    home.publish()
    home.publish()
    home.job("completed")
    (home.settings.home / "jobs" / f"{PARTIAL}left").mkdir()
    os.utime(home.settings.home / "jobs" / f"{PARTIAL}left", (OLD, OLD))
    before = tree(home.settings.home / "jobs"), tree(home.models.models)
    assert len(planned(stores, *KINDS).items) == 3
    assert (tree(home.settings.home / "jobs"), tree(home.models.models)) == before


# --- the command


@pytest.fixture(autouse=True)
def settings_of_this_test() -> Iterator[None]:
    """The settings are those of the variables that a test sets, and of no later test."""
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def command(
    home: Furnished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[int, str]]:
    monkeypatch.setenv("VISIONLOOP_HOME", str(home.settings.home))
    monkeypatch.setenv("BENTOML_HOME", str(home.models.home))

    def run(line: str) -> tuple[int, str]:
        code = main(line.split())
        read = capsys.readouterr()
        return code, read.out + read.err

    return run


def told(home: Furnished) -> list[tuple[str, str]]:
    """The audit trail, the newest first."""
    return [(row.route, row.what) for row in AuditLog(home.database).list()]


def test_the_command_shows_first_and_deletes_with_yes(
    home: Furnished, command: Callable[[str], tuple[int, str]]
) -> None:
    job = home.job("completed")
    code, text = command("prune all")
    assert code == 0
    assert job in text
    assert text.endswith("Nothing is yet: add --yes.\n")
    assert home.jobs.get(job)
    _, text = command("prune jobs --older-than 1w --json")
    shown = json.loads(text)
    assert shown["dry_run"]
    assert [item["id"] for item in shown["items"]] == [job]
    _, text = command("prune jobs --yes")
    assert text.splitlines()[-1].startswith("Deleted 1: ")
    assert home.jobs.list() == []
    assert told(home) == [("upkeep prune", "deleted 1 of jobs")]
    _, text = command("prune all --older-than 0d --yes --json")
    assert json.loads(text) == {"dry_run": False, "items": [], "kept": [], "bytes": 0}
    assert command("prune all")[1] == "Nothing to delete.\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prune jobs --older-than 3", "'3' is not an age; write 30d, 12h or 90min"),
        ("prune jobs --older-than 99999999999d", "is too long ago"),
        ("prune models --keep -1", "'-1' is not a whole number from 0 on"),
        ("prune", "required: KIND"),
    ],
)
def test_what_is_not_understood_is_refused(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_home_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "nowhere"))
    assert main(["prune", "all"]) == 1
    assert "There is no VisionLoop in" in capsys.readouterr().err
    assert not Settings().home.exists()


@pytest.mark.sqlite  # with PostgreSQL the home has no database
def test_the_commands_of_backups(
    home: Furnished, tmp_path: Path, command: Callable[[str], tuple[int, str]]
) -> None:
    home.publish()
    code, text = command(f"backup {tmp_path}/saved")
    assert (code, text.count("1 models")) == (0, 1)
    assert "read again and verified" in text
    assert told(home) == [("upkeep backup", f"wrote a backup to {tmp_path}/saved")]
    made = opened(tmp_path / "saved").manifest().header.created_at
    with home.database.read() as session:
        assert getattr(session.get(State, BACKUP), "text", None) == made, "a metric tells it"
    code, text = command(f"verify {tmp_path}/saved --json")
    assert (code, json.loads(text)["counts"]["models"]) == (0, 1)
    assert command(f"restore {tmp_path}/saved") == (
        1,
        f"error: Not empty: {home.settings.home}, {home.models.models}. A restore does not merge. "
        "Set VISIONLOOP_HOME and BENTOML_HOME to empty folders, or add --force, which moves the "
        "former content aside.\n",
    )
    home.database.close()
    code, text = command(f"restore {tmp_path}/saved --force")
    assert (code, text.count("The former content is in ")) == (0, 2)
    next((tmp_path / "saved/objects").rglob("*/*")).write_bytes(b"changed")
    code, text = command(f"verify {tmp_path}/saved")
    assert code == 1
    assert text.startswith("error: ")
    assert "in the backup is damaged" in text
