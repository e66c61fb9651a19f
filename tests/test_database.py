"""The tables: made by migrations alone, whoever was there before."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from annotation.datasets import AnnotatedDatasets
from database import HEAD, Database, alembic_config
from errors import DatabaseBusy, DatabaseDamaged, InsufficientStorage, VisionLoopError
from evaluation.store import EvaluationStore
from jobs.store import JobStore
from migrations.tables import METADATA
from models_store.registry import Registry
from settings import Settings
from tests.support.locked_database import locked
from tests.support.serving import environment

ROOT = Path(__file__).parents[1]
OLD = Path(__file__).parent / "schema_2.sql"  # a database of the version before Alembic, dumped


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings)
    yield database
    database.close()


def old_database(settings: Settings) -> sqlite3.Connection:
    connection = sqlite3.connect(settings.home / "visionloop.db")
    connection.executescript(OLD.read_text())
    return connection


def columns(connection: sqlite3.Connection, table: str) -> str:
    """A table's columns, to be selected: later versions may have more."""
    return ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({table})"))


def test_the_migrations_make_the_tables_that_the_code_declares(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_the_newest_migration_is_the_one_that_is_asked_for(database: Database) -> None:
    with database.engine.connect() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
    assert script.get_heads() == [HEAD]


@pytest.mark.parametrize("name", ["a?b=1", "a%20b", "a#b", "a:b", "é ö", "file:x", "a\udce9"])
def test_the_database_lies_in_the_home_whatever_its_name(tmp_path: Path, name: str) -> None:
    Database(Settings(home=tmp_path / name)).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "visionloop.db").is_file()


def test_a_database_of_the_version_before_keeps_its_rows(settings: Settings) -> None:
    old = old_database(settings)
    tables = ("jobs", "models", "promotions", "evaluations", "annotated_datasets",
              "annotation_entries", "decisions", "live_quality", "shadows")  # fmt: skip
    # without the metrics of models, which get a letterbox
    shown = {name: columns(old, name).replace(', "metrics"', "") for name in tables}
    queries = {name: f"SELECT {shown[name]} FROM {name}" for name in tables}  # noqa: S608
    before = {name: old.execute(query).fetchall() for name, query in queries.items()}
    assert all(before[name] for name in ("jobs", "models", "evaluations", "annotation_entries"))
    old.close()
    for _ in range(2):  # the second start finds it done
        database = Database(settings)
        with database.read() as session:
            for name, query in queries.items():
                rows = session.execute(text(query)).fetchall()
                assert [tuple(row) for row in rows] == before[name], name
            assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
        jobs, registry = JobStore(database), Registry(database)
        assert {job.status for job in jobs.list()} == {"completed", "stopped"}
        trained = next(job for job in jobs.list() if job.status == "completed")
        assert trained.model_id in [version.id for version in registry.list()]
        assert EvaluationStore(database).of_job(trained.id, trained.model_id or "") is not None
        assert AnnotatedDatasets(database).find("upload:shapes-jbb3a4i6") is not None
        database.close()


def test_the_kinds_of_annotation_sources_are_filled_from_their_prefixes(settings: Settings) -> None:
    old = old_database(settings)
    row = "'Name', '{}', 0, 0, '2026-01-01', '2026-01-01'"
    for source in ("batch:f00", "label_studio:1.2"):
        old.execute(f"INSERT INTO annotated_datasets VALUES ('{source}', '{source}', {row})")  # noqa: S608
    entry = "'', '', 0, '', 1, '{}', NULL, '', NULL, NULL, '2026-01-01'"
    for key in ("model:1", "17", "17#1"):
        old.execute(f"INSERT INTO annotation_entries VALUES ('batch:f00', '{key}', {entry})")  # noqa: S608
    old.commit()
    old.close()
    database = Database(settings)
    with database.read() as session:
        rows = session.execute(text("SELECT source, kind FROM annotated_datasets"))
        sources = {row.source: row.kind for row in rows}
        rows = session.execute(text("SELECT key, kind FROM annotation_entries"))
        entries = {row.key: row.kind for row in rows}
    database.close()
    assert sources == {
        "upload:shapes-jbb3a4i6": "upload",
        "batch:f00": "batch",
        "label_studio:1.2": "project",
    }
    added = {"model:1": "model", "17": "tool", "17#1": "tool"}
    assert {key: kind for key, kind in entries.items() if key in added} == added
    others = {(key.partition(":")[0], kind) for key, kind in entries.items() if key not in added}
    assert others == {("original", "original"), ("person", "person")}


def test_evaluations_of_before_had_squares_and_classifiers_nothing(settings: Settings) -> None:
    old = old_database(settings)
    [[figures]] = old.execute("SELECT figures FROM evaluations").fetchall()
    of_classifier = json.dumps({"accuracy": 1.0, "accuracy_top5": 1.0})
    old.execute(
        "INSERT INTO evaluations SELECT 2, 'c', name, version, dataset, dataset_path, fingerprint, "
        "split, ?, job_id, created_at FROM evaluations",
        (of_classifier,),
    )
    [[name, version, metrics]] = old.execute(
        "SELECT name, version, metrics FROM models WHERE metrics LIKE '%mAP50%' LIMIT 1"
    ).fetchall()
    old.commit()
    old.close()
    database = Database(settings)
    with database.read() as session:
        rows = session.execute(text("SELECT id, letterbox FROM evaluations ORDER BY number"))
        letterboxes = [row.letterbox for row in rows]
        found = session.execute(
            text("SELECT metrics FROM models WHERE name = :name AND version = :version"),
            {"name": name, "version": version},
        ).scalar_one()
    database.close()
    assert "mAP50" in json.loads(figures)
    assert letterboxes == ["square", None]
    assert json.loads(found) == json.loads(metrics) | {"letterbox": "square"}


def test_jobs_of_the_first_schema_gain_the_batch_of_their_checkpoint(settings: Settings) -> None:
    old = old_database(settings)
    old.execute("ALTER TABLE jobs DROP COLUMN checkpoint_batch")
    old.execute("UPDATE state SET number = 1 WHERE key = 'schema'")
    old.commit()
    old.close()
    database = Database(settings)
    assert {job.checkpoint_batch for job in JobStore(database).list()} == {0}
    database.close()


def test_tables_that_an_older_program_never_made_are_added(settings: Settings) -> None:
    old = old_database(settings)
    old.execute("DROP TABLE jobs")
    old.commit()
    old.close()
    database = Database(settings)
    assert JobStore(database).list() == []
    database.close()


def test_the_version_before_keeps_away_from_a_migrated_database(database: Database) -> None:
    with database.read() as session:
        number = session.execute(text("SELECT number FROM state WHERE key = 'schema'")).scalar()
    assert number == 3  # it knows 2, and refuses a greater one


def test_a_database_of_a_newer_program_is_refused(settings: Settings) -> None:
    database = Database(settings)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(VisionLoopError, match="newer VisionLoop"):
        Database(settings)


def test_eight_processes_open_a_new_database_at_once(settings: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from database import Database; "
        "from settings import Settings; Database(Settings(home=Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(settings.home)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(8)
    ]
    assert [process.communicate()[1] for process in started] == [""] * 8
    assert [process.returncode for process in started] == [0] * 8


def test_a_start_that_changes_nothing_does_not_import_alembic(settings: Settings) -> None:
    Database(settings).close()
    code = (
        "import sys; from pathlib import Path; from database import Database; "
        "from settings import Settings; Database(Settings(home=Path(sys.argv[1]))); "
        "print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(settings.home)]
    assert subprocess.check_output(command, cwd=ROOT, text=True).strip() == "False"


def test_without_a_url_nothing_imports_psycopg_or_obstore(settings: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; import service, worker; from database import "
        "Database; from settings import Settings; Database(Settings(home=Path(sys.argv[1]))); "
        "print([name for name in ('psycopg', 'obstore') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(settings.home)]
    done = subprocess.check_output(command, cwd=ROOT, text=True, env=environment(settings.home))
    assert done.splitlines()[-1] == "[]"


def test_a_locked_database_is_said_and_readers_go_on(settings: Settings) -> None:
    database = Database(settings, patience=0.1)
    jobs = JobStore(database)
    with locked(settings.paths.database):
        with pytest.raises(DatabaseBusy) as caught:
            jobs.create("training", config={}, recipe={})
        assert caught.value.retry_after
        assert jobs.list() == []
    made = jobs.create("training", config={}, recipe={})
    assert [job.id for job in jobs.list()] == [made.id]
    database.close()


def test_a_process_that_locks_out_readers_too_is_said(settings: Settings) -> None:
    Database(settings).close()
    other = sqlite3.connect(settings.paths.database, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(DatabaseBusy, match="Another process has locked the database"):
        Database(settings, patience=0.1)
    other.close()
    Database(settings, patience=0.1).close()


def test_the_patience_of_one_read_is_not_that_of_the_next(settings: Settings) -> None:
    database = Database(settings, patience=7)
    for patience, seconds in ((0.05, 0.05), (None, 7), (0.5, 0.5), (None, 7)):
        with database.read(patience) as session:
            assert session.scalar(text("PRAGMA busy_timeout")) == 1000 * seconds
    database.close()


@pytest.mark.parametrize(
    ("state", "kind"),
    [("55P03", DatabaseBusy), ("08006", DatabaseBusy), (None, DatabaseBusy),
     ("53100", InsufficientStorage), ("42601", OperationalError)],
)  # fmt: skip
def test_errors_of_other_databases(database: Database, state: str | None, kind: type) -> None:
    """Made by hand: no other database runs in the tests."""

    class Refused(Exception):
        sqlstate = state

    with pytest.raises(kind), database.read():
        raise OperationalError("SELECT", {}, Refused())


def damaged(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at : at + 4096] = b"\xa5" * len(content[at : at + 4096])
    file.write_bytes(bytes(content))


def test_a_file_that_is_no_database_is_said(settings: Settings) -> None:
    Database(settings).close()
    damaged(settings.paths.database, 0)
    with pytest.raises(DatabaseDamaged, match="restore VISIONLOOP_HOME from a backup"):
        Database(settings)


def test_a_damaged_page_is_found_by_the_check(settings: Settings) -> None:
    database = Database(settings)
    database.check()
    with database.read() as session:  # a page that nothing reads before the check
        page = session.execute(text("SELECT rootpage FROM sqlite_master WHERE name = 'audit'"))
        at = (page.scalar_one() - 1) * 4096
    database.close()
    damaged(settings.paths.database, at)
    database = Database(settings)
    with pytest.raises(DatabaseDamaged, match="The database is damaged"):
        database.check()
    database.close()


def test_a_new_home_is_its_owners(tmp_path: Path) -> None:
    home = tmp_path / "new"
    Database(Settings(home=home)).close()
    assert home.stat().st_mode & 0o777 == 0o700
