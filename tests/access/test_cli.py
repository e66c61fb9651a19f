"""`python -m access`: text, JSON, exit codes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from access.__main__ import main
from access.tokens import TOKEN
from settings import get_settings
from shell import CLOSED_PIPE
from source_tree import ROOT
from tests.support.serving import environment

Run = Callable[..., str]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    monkeypatch.setenv("VISIONLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "olga")
    monkeypatch.setenv("LOGNAME", "olga")
    get_settings.cache_clear()

    def command(*arguments: str, code: int = 0) -> str:
        assert main(arguments) == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    yield command
    get_settings.cache_clear()
    logging.disable(logging.NOTSET)  # the command silences its process


def test_a_story(run: Run) -> None:
    assert "No named token is valid" in run("list")
    secret = run("create", "anna", "--scope", "annotate", "--expires", "90d").strip()
    assert TOKEN.fullmatch(secret), "stdout has the token alone, for a variable"
    assert "There is a token 'anna' already" in run("create", "anna", "--scope", "use", code=1)
    heading, row = run("list").splitlines()
    assert heading.split()[:3] == ["NAME", "SCOPE", "STATE"]
    assert row.split()[:3] == ["anna", "annotate", "valid"]
    assert "anna" in run("open", code=1), "a valid token keeps the server closed"
    assert "visionloop tokens open" in run("revoke", "anna")
    assert "--all" in run("list")
    assert "revoked" in run("list", "--all")
    assert "The server is open" in run("open")
    assert "Nothing to do" in run("open")
    told = json.loads(run("audit", "--json", "--who", "command line, olga"))["entries"]
    assert [row["route"] for row in told] == ["access open", "access revoke", "access create"]
    assert [row["target"] for row in told] == [None, "anna", "anna"]
    assert secret not in run("audit")
    assert run("audit", "--what", "nothing like it") == "No entries.\n"


def test_a_token_is_renewed(run: Run) -> None:
    first = run("create", "anna", "--scope", "annotate").strip()
    second = run("renew", "anna", "--old-ends", "24h").strip()
    assert TOKEN.fullmatch(second)
    assert second != first
    assert [row.split()[:3] for row in run("list").splitlines()[1:]] == [
        ["anna", "annotate", "valid"]
    ] * 2
    older = json.loads(run("renew", "anna", "--json"))["older"]
    assert [one["state"] for one in older] == ["revoked", "revoked"]
    assert len(run("list").splitlines()) == 2, "the newest is the only one that works"
    assert "is past" in run("renew", "anna", "--old-ends", "2020-01-01", code=1)
    told = json.loads(run("audit", "--json"))["entries"]
    assert [row["route"] for row in told] == ["access renew", "access renew", "access create"]
    assert told[0]["what"] == "renewed a token; its 2 older texts have ended"
    assert told[1]["what"].endswith(" at the latest"), "it may have expired before"


def test_json_has_what_a_program_needs(run: Run) -> None:
    made = json.loads(run("create", "ci", "--scope", "admin", "--json"))
    assert TOKEN.fullmatch(made["token"])
    [listed] = json.loads(run("list", "--json"))["tokens"]
    assert listed == {name: value for name, value in made.items() if name != "token"}
    assert json.loads(run("revoke", made["id"], "--json"))["state"] == "revoked"
    assert json.loads(run("open", "--json")) == {"was_closed": True}


def test_what_is_not_understood_is_refused(run: Run) -> None:
    assert "90d" in run("create", "a", "--scope", "use", "--expires", "soon", code=1)
    assert "--since" in run("audit", "--since", "yesterday", code=1)
    assert "No token 'a'" in run("revoke", "a", code=1)


@pytest.mark.parametrize("number", ["0", "-1", "²", "9" * 19, "9" * 5000])
def test_a_number_of_an_entry_is_one(run: Run, number: str) -> None:
    for option in ("--before", "--limit"):
        with pytest.raises(SystemExit) as ended:
            run("audit", f"{option}={number}")
        assert ended.value.code == 2


def test_it_runs_from_any_folder_and_ends_with_its_reader(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "access"), "audit", "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == CLOSED_PIPE
