from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout
from sqlalchemy import text

from database import Database
from exclusive import HeldForLife
from serving.lifecycle import (
    announce,
    announce_access,
    fill,
    hold,
    hold_database,
    hold_file,
    make_private,
    prepare,
    usable_settings,
)
from settings import Settings, get_settings
from tests.support.patience import wait_until
from tests.support.serving import ROOT

END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted "
    "AND pid <> pg_backend_pid()"
)


@pytest.fixture
def fresh_settings() -> Iterator[None]:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.mark.usefixtures("fresh_settings")
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("VISIONLOOP_RATE_LIMIT", "often", "VISIONLOOP_RATE_LIMIT: .*valid number"),
        ("VISIONLOOP_IMAGE_URL", "all", "VISIONLOOP_IMAGE_URL: .*'off' or 'public'"),
        ("VISIONLOOP_MAX_BODY_MB", "-1", "VISIONLOOP_MAX_BODY_MB: .*greater than 0"),
    ],
)
def test_an_unusable_setting_ends_the_start_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=sentence):
        usable_settings()
    monkeypatch.setenv("VISIONLOOP_LOG_FORMAT", "json")
    with pytest.raises(SystemExit) as ended:
        usable_settings()
    line = json.loads(str(ended.value.code))
    assert line["level"] == "CRITICAL"
    assert re.match(sentence, line["message"])


def test_a_folder_is_held_against_other_processes_only(tmp_path: Path) -> None:
    hold(tmp_path, "VISIONLOOP_HOME")
    hold(tmp_path, "VISIONLOOP_HOME")
    code = "import sys; from pathlib import Path; from serving.lifecycle import hold; "
    code += "hold(Path(sys.argv[1]), 'VISIONLOOP_HOME')"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert other.returncode == 1
    assert other.stderr.startswith("Another VisionLoop server is using")
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize("usual", [False, True], ids=["elsewhere", "in-the-first-home"])
def test_one_server_uses_a_database_file(tmp_path: Path, usual: bool) -> None:
    """Two processes with homes of their own: both would start its jobs."""
    folder = tmp_path / "one" if usual else tmp_path / "shared"
    folder.mkdir()
    file = folder / ("visionloop.db" if usual else "mine.db")
    (tmp_path / "link.db").symlink_to(file)
    code = (
        "import sys; from pathlib import Path; from settings import Settings\n"
        "from serving.lifecycle import hold, hold_file\n"
        "found = Settings(home=Path(sys.argv[1]), database_url=sys.argv[2] or None)\n"
        "hold(found.home, 'VISIONLOOP_HOME'); hold_file(found); hold_file(found)\n"
        "print('held', flush=True); sys.stdin.read()"
    )

    def server(home: str, url: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", code, str(tmp_path / home), url]
        return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    with server("one", "" if usual else f"sqlite:///{file}") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        for other in (f"{tmp_path}/link.db", f"file:{file}?uri=true"):
            with server("two", f"sqlite:///{other}") as second:
                _, error = second.communicate()
            assert second.returncode == 1
            assert error.startswith(f"Another VisionLoop server is using the database {file}.")
            assert "Several servers share a PostgreSQL" in error
        first.communicate()
    with server("two", f"sqlite:///{file}") as third:  # the first has ended
        assert third.communicate()[0] == "held\n"


def test_the_folder_of_a_database_file_is_not_made(tmp_path: Path) -> None:
    """An empty database on a disk that is not mounted would look like a loss of everything."""
    url = f"sqlite:///{tmp_path}/mnt/visionloop.db"
    with pytest.raises(SystemExit, match=f"there is no folder {tmp_path}/mnt. Mount its disk"):
        hold_file(Settings(home=tmp_path / "home", database_url=url))
    assert not (tmp_path / "mnt").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit, match=f"BENTOML_HOME cannot be used: .*{file.name}"):
        hold(file / "home", "BENTOML_HOME")


Announced = Callable[[Settings], str]


@pytest.fixture
def announced(caplog: pytest.LogCaptureFixture) -> Announced:
    """What a server with these settings logs at its start."""

    def call(settings: Settings) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO, "visionloop"):
            announce(settings)
        return caplog.text

    return call


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ({}, "No token is required: everyone who can reach the port"),
        ({"token": "s3cret"}, "Every request needs a token."),
        (
            {"admin_token": "s3cret"},
            "Requests need no token; administration needs the admin token.",
        ),
        ({"closed": True}, "but none is valid. Create one: visionloop tokens create"),
        ({"closed": True, "valid": 2}, "since named tokens were created. 2 named tokens are valid"),
        ({"closed": True, "admin_token": "s3cret"}, "Every request needs a token, since named"),
    ],
)
def test_the_announcement_says_who_may_come_in_and_no_secret(
    caplog: pytest.LogCaptureFixture, tokens: dict[str, Any], sentence: str
) -> None:
    named = {name: tokens[name] for name in ("closed", "valid") if name in tokens}
    settings = Settings.model_validate({name: tokens[name] for name in tokens.keys() - named})
    with caplog.at_level(logging.INFO, "visionloop"):
        announce(settings)
        announce_access(settings, **named)
    assert sentence in caplog.text
    assert "s3cret" not in caplog.text


def test_a_home_that_others_can_enter_is_said(tmp_path: Path, announced: Announced) -> None:
    for mode, warned in ((0o755, True), (0o700, False)):
        tmp_path.chmod(mode)
        assert (f"chmod 700 {tmp_path}" in announced(Settings(home=tmp_path))) == warned


def test_a_damaged_database_ends_the_start_with_the_file_and_the_remedy(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.paths.database.write_bytes(b"no database " * 1000)
    with pytest.raises(SystemExit) as caught:
        fill(settings)
    assert str(caught.value).startswith(f"The database {tmp_path}/visionloop.db: ")
    assert "docs/how-to/back-up.md" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_of_a_newer_version_ends_the_start(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    database = Database(settings)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(SystemExit, match="a newer VisionLoop has migrated it"):
        fill(settings)


def test_a_database_with_a_hard_link_is_said(tmp_path: Path, announced: Announced) -> None:
    settings = Settings(home=tmp_path)
    settings.paths.database.touch()
    assert "hard link" not in announced(settings)
    os.link(settings.paths.database, tmp_path / "copy.db")
    assert f"{settings.paths.database} has another name" in announced(settings)


def test_runners_on_tcp_ports_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENTOML_NO_UDS", "1")
    with pytest.raises(SystemExit, match=r"BENTOML_NO_UDS: .*Unset it"):
        prepare(Settings(home=tmp_path / "home"))
    assert not (tmp_path / "home").exists()


def test_a_new_bentoml_home_is_private_and_a_used_one_is_left_as_it_is(tmp_path: Path) -> None:
    for name in ("models", "bentos"):
        (tmp_path / name).mkdir()
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    (tmp_path / "models" / "mine").mkdir()
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


Servers = Callable[..., Database]


@pytest.fixture
def servers(tmp_path: Path, new_postgres: Callable[[], str]) -> Iterator[Servers]:
    """Opens the database that several servers share, each with a home of its own."""
    url, opened = new_postgres(), list[Database]()

    def call(**more: Any) -> Database:
        home = tmp_path / f"home{len(opened)}"
        opened.append(Database(Settings(home=home, database_url=url, disk_reserve=0, **more)))
        return opened[-1]

    yield call
    for database in opened:
        database.close()


STORE = "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {}), ({}, {"store_url": STORE}), ({"store_url": STORE}, {})],
    ids=["no store", "only the second has a store", "only the first has a store"],
)
def test_two_servers_share_no_database_without_a_store(
    servers: Servers, first: dict[str, Any], second: dict[str, Any]
) -> None:
    held = hold_database(servers(**first))
    assert held is not None
    with pytest.raises(SystemExit, match="all of them have the same VISIONLOOP_STORE_URL"):
        hold_database(servers(**second), 0)
    held.release()
    again = hold_database(servers(**second), 0)
    assert again is not None
    again.release()


def test_servers_with_a_store_share_a_database(servers: Servers) -> None:
    for held in [hold_database(servers(store_url=STORE), 0) for _ in range(3)]:
        assert held is not None
        held.release()


def test_a_server_holds_its_database_again_after_the_connection_was_lost(
    servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = servers(), servers()
    lock = here.exclusive("server")
    lock.acquire(0)
    held = HeldForLife(lock, "Another server has it.", pause=0.5)
    other = there.exclusive("server")
    with there.engine.connect() as connection:
        while True:  # until the other one is faster
            connection.execute(text(END_OTHERS))
            with contextlib.suppress(Timeout):
                other.acquire(0)
                break
    wait_until(lambda: "Another server has it." in caplog.text)
    other.release()
    wait_until(lock.is_held)
    held.release()
    assert not lock.is_held()


def test_a_database_of_one_machine_is_protected_by_its_home(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/visionloop.db"
    database = Database(Settings(home=tmp_path, database_url=url))
    assert hold_database(database) is None
    database.close()
