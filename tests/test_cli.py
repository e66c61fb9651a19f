"""The shell command `visionloop`: from any folder, through links, at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import pytest

from cli import COMMANDS, main
from source_tree import VERSION
from tests.support.patience import PATIENCE
from tests.support.serving import ROOT, environment

COMMAND = ROOT / "bin" / "visionloop"
HEAVY = ("torch", "ultralytics", "bentoml", "sqlalchemy", "pydantic", "numpy", "httpx", "rich")
PARSERS = {one.module: import_module(one.module).command_line for one in COMMANDS.values()}
SEVERAL = sorted({one.module for one in COMMANDS.values() if not one.word} - {"commands.serve"})


def run(
    *words: str,
    folder: Path = Path("/"),
    program: Path = COMMAND,
    variables: Mapping[str, str] = {},
) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"VISIONLOOP_PYTHON": sys.executable} | dict(variables)
    return subprocess.run(
        [str(program), *words],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_it_runs_from_any_folder_and_through_links(tmp_path: Path) -> None:
    for name in ("shell.py", "models_store.py", "settings.py"):  # not these
        (tmp_path / name).write_text("raise SystemExit('the wrong one')")
    (tmp_path / "first").symlink_to(COMMAND)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "second").symlink_to("../first")
    for program in (COMMAND, tmp_path / "first", tmp_path / "bin" / "second"):
        done = run("--version", folder=tmp_path, program=program)
        assert (done.stdout, done.stderr) == (f"VisionLoop {VERSION}\n", "")
    done = run("models", "list", folder=tmp_path, variables=environment(tmp_path))
    assert done.stdout.startswith("There are no models."), done.stderr


def test_it_runs_with_names_and_variables_as_users_have_them(tmp_path: Path) -> None:
    code = tmp_path / "Bild é (2)"
    code.symlink_to(ROOT)
    program = Path("bin/visionloop")  # relative, where CDPATH has such a folder, too
    (tmp_path / "elsewhere" / "bin").mkdir(parents=True)
    variables = {"CDPATH": str(tmp_path / "elsewhere"), "LC_ALL": "C"}
    done = run("--version", folder=code, program=program, variables=variables)
    assert (done.stdout, done.stderr) == (f"VisionLoop {VERSION}\n", "")
    done = run("--version", folder=tmp_path, program=code / program, variables={"HOME": ""})
    assert (done.stdout, done.stderr) == (f"VisionLoop {VERSION}\n", "")
    done = run("--version", variables={"VISIONLOOP_PYTHON": "/nowhere/python"})
    assert done.returncode == 1
    assert done.stderr == "visionloop: there is no program /nowhere/python (VISIONLOOP_PYTHON).\n"


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_streams_that_are_closed_change_nothing(tmp_path: Path, closed: str) -> None:
    for words, code in (("--version", 0), ("models list --json", 0), ("models show none", 1)):
        done = subprocess.run(
            ["sh", "-c", f'"$0" {words} {closed}', str(COMMAND)],
            env=environment(tmp_path) | {"VISIONLOOP_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_it_finds_its_python(tmp_path: Path) -> None:
    """Its own environment, that of a link to it, the active one, or any."""

    def python(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "python").write_text(f'#!/bin/sh\necho "{folder.parent.name}" "$@"\n')
        (folder / "python").chmod(0o755)
        (folder.parent / "pyvenv.cfg").touch()
        return folder / "python"

    code = tmp_path / "code"
    (code / "bin").mkdir(parents=True)
    program = Path(shutil.copy(COMMAND, code / "bin"))
    python(tmp_path / "active" / "bin")
    python(tmp_path / "linked" / "bin")
    (tmp_path / "linked" / "bin" / "visionloop").symlink_to(program)
    shutil.copy(tmp_path / "active" / "bin" / "python", tmp_path / "python3")
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VISIONLOOP_PYTHON": ""}
    active = path | {"VIRTUAL_ENV": str(tmp_path / "active")}
    called = f"{code}/cli.py a  b\n"

    def chosen(program: Path, variables: dict[str, str]) -> str:
        return run("a ", "b", program=program, variables=variables).stdout

    assert chosen(program, active) == f"active {called}"
    assert chosen(tmp_path / "linked/bin/visionloop", active) == f"linked {called}"
    python(code / ".venv" / "bin")
    assert chosen(program, active) == f".venv {called}"
    shutil.rmtree(code / ".venv")
    assert chosen(program, path | {"VIRTUAL_ENV": ""}) == f"active {called}"  # python3, on PATH


def test_a_python_without_the_packages_is_told_what_to_do() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None; import cli; sys.exit(cli.main(['jobs', 'list']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    assert "lacks the package httpx. Run `make setup` in " in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, cli\n"
        "try: cli.main(['--help'])\n"
        f"except SystemExit: print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_needs_torch_to_show_its_help(name: str) -> None:
    code = (
        f"import sys, cli\ntry: cli.main([{name!r}, '--help'])\n"
        "except SystemExit: print('torch' in sys.modules, 'ultralytics' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.splitlines()[-1] == "False False", done.stderr
    assert done.stdout.startswith(f"usage: visionloop {name} ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["modles"], "Did you mean 'models'?"),
        (["models", "lst"], "Did you mean 'list'?"),
        (["jobs", "cancle"], "Did you mean 'cancel'?"),
        (["datasets", "uplaod"], "Did you mean 'upload'?"),
        (["prune", "modles"], "Did you mean 'models'?"),
        (["training", "start", "incremetal"], "Did you mean 'incremental'?"),
        (["backup", "verify"], "visionloop backup verify: error: "),
        (["backup", "list"], "visionloop backup list: error: "),
        ([], "required: COMMAND"),
    ],
)
def test_an_unknown_word_is_answered_with_the_near_one(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def heed_ctrl_c() -> None:
    """What a shell in the background had its processes ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_shows_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [
            str(COMMAND),
            "jobs",
            "list",
            "--url",
            f"http://127.0.0.1:{silent.getsockname()[1]}",
        ]
        process = subprocess.Popen(
            command,
            env=os.environ | {"VISIONLOOP_PYTHON": sys.executable},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_ctrl_c,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)  # it waits for the answer now
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=PATIENCE)
    assert (process.returncode, error) == (130, "The job goes on; `list` shows it.\n")


@pytest.mark.parametrize("module", SEVERAL)
def test_every_module_runs_by_itself_too(module: str) -> None:
    """`python -m` of the versions before goes on."""
    name = module.removesuffix(".__main__")
    assert PARSERS[module]().prog == f"python -m {name}"
