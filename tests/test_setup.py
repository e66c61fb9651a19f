"""`make setup` refuses what cannot go well, with one sentence that names the remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def python_of(folder: Path, version: tuple[int, int], name: str = "python") -> Path:
    """A program that runs `-c CODE` with this Python, which says that it is another one."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; '
        f'sys.version_info = ({version[0]}, {version[1]}, 0); exec(sys.argv[1])" "$2"\n'
    )
    program.chmod(0o755)
    return program


def make(*arguments: str | Path) -> tuple[int, str]:
    """Exit status and output of `make ARGUMENTS` in the checkout."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        ["make", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("version", [(2, 7), (3, 9), (3, 10), (3, 15), (3, 20), (4, 0)])
def test_another_python_is_refused(tmp_path: Path, version: tuple[int, int]) -> None:
    python, venv = python_of(tmp_path / "my pythons", version), tmp_path / "venv"
    code, said = make("setup", f"PYTHON={python}", f"VENV={venv}")
    assert code != 0
    assert said.splitlines()[0] == (
        f"VisionLoop needs Python 3.11 to 3.14, {python} is {version[0]}.{version[1]}: "
        "name another one, such as make PYTHON=python3.13 ..."
    )
    assert not venv.exists()


def test_a_python_that_is_not_there_is_refused(tmp_path: Path) -> None:
    code, said = make("serve", "PYTHON=python3.99", f"VENV={tmp_path / 'venv'}")
    assert code != 0
    assert "python3.99 is not there: name another one, such as make PYTHON=" in said


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_the_pythons_of_the_lock_are_taken(tmp_path: Path, minor: int) -> None:
    venv = tmp_path / "venv"
    python_of(venv / "bin", (3, minor))
    (venv / ".installed").touch()
    python = python_of(tmp_path, (3, minor), f"python3.{minor}")
    assert make("setup", f"PYTHON={python}", f"VENV={venv}") == (0, "")


@pytest.mark.parametrize(
    ("has", "wanted", "sentence"),
    [
        ((3, 10), (3, 12), "VisionLoop needs Python 3.11 to 3.14, {venv} has 3.10: "),
        ((3, 11), (3, 12), "{venv} has Python 3.11, {python} is 3.12: "),
    ],
)
def test_an_environment_of_another_python_is_not_kept_in_silence(
    tmp_path: Path, has: tuple[int, int], wanted: tuple[int, int], sentence: str
) -> None:
    venv = tmp_path / "venv"
    python_of(venv / "bin", has)
    (venv / ".installed").touch()
    python = python_of(tmp_path, wanted, "python3.12")
    code, said = make("setup", f"PYTHON={python}", f"VENV={venv}")
    assert code != 0
    assert said.splitlines()[0] == (
        sentence.format(venv=venv, python=python)
        + f"remove it with 'make clean VENV={venv}' and try again."
    )


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # refused for root too, unlike a folder without write bits
    venv = tmp_path / "file" / "venv"
    python = python_of(tmp_path, (3, 12))
    code, said = make("setup", f"PYTHON={python}", f"VENV={venv}")
    assert code != 0
    assert said.splitlines()[0] == (
        f"{venv} cannot be written here: name another place, such as "
        "make VENV=/var/tmp/visionloop-venv ..."
    )


@pytest.mark.parametrize("venv", ["/tmp/my venv", "/tmp/a:b", ""])
def test_an_environment_that_make_cannot_name_is_refused(venv: str) -> None:
    code, said = make("setup", f"VENV={venv}")
    assert code != 0
    assert f"VENV is one path, without spaces and colons: '{venv}'" in said


def test_an_environment_in_the_home_folder_lies_there() -> None:
    assert make("--dry-run", "setup", "VENV=~/venv", "HOME=/srv/me") == (
        0, 'sh setup.sh "python3" "/srv/me/venv"\n'
    )  # fmt: skip


def test_a_folder_of_something_else_is_neither_filled_nor_removed(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.touch()
    python = python_of(tmp_path / "bin of another", (3, 12))
    code, said = make("setup", f"PYTHON={python}", f"VENV={tmp_path}")
    assert code != 0
    assert said.startswith(f"{tmp_path} holds something else: name another place")
    code, said = make("clean", f"VENV={tmp_path}")
    assert code != 0
    assert said.startswith(f"{tmp_path} is no virtual environment: remove it yourself")
    assert photo.exists()


def test_a_python_that_is_not_there_costs_no_environment(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python_of(venv / "bin", (3, 12))
    (venv / ".installed").touch()
    code, said = make("setup", "PYTHON=/no/such", f"VENV={venv}")
    assert code != 0
    assert "/no/such is not there: name another one, such as make PYTHON=" in said


@pytest.mark.parametrize("port", ["abc", "", "0", "65536", "99999", "-1", "80 81", "3000.5"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    """BentoML 1.4.39 takes 99999 and runs: nobody finds it there."""
    venv = tmp_path / "venv"
    python_of(venv / "bin", (3, 12))
    (venv / ".installed").touch()
    code, said = make("serve", f"VENV={venv}", f"PORT={port}")
    assert code != 0
    assert said.splitlines()[0] == f"PORT is a number from 1 to 65535, not '{port}'."


def test_the_port_is_bentomls_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_PORT", "8123")
    assert "--port 8123" in make("--dry-run", "serve")[1]
    assert "--port 8000" in make("--dry-run", "serve", "PORT=8000")[1]


def test_a_cpu_that_the_tests_cannot_play_is_refused() -> None:
    code, said = make("test", "CPU=avx512")
    assert code != 0
    assert "CPU is avx2 or not given: 'avx512'" in said


def test_a_failed_installation_names_the_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip may have installed uv with a certificate that uv does not know of."""
    venv, uv = tmp_path / "venv", tmp_path / "bin" / "uv"
    python_of(venv / "bin", (3, 12))
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\necho 'invalid peer certificate: UnknownIssuer' >&2\nexit 2\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}{os.pathsep}{os.environ['PATH']}")
    code, said = make("setup", f"VENV={venv}")
    assert code != 0
    assert "UnknownIssuer" in said
    assert "UV_SYSTEM_CERTS=1" in said
    assert not (venv / ".installed").exists()


def test_a_missing_system_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv, uv = tmp_path / "venv", tmp_path / "bin" / "uv"
    python = python_of(venv / "bin", (3, 12))
    program = python.read_text().replace(
        "exec(sys.argv[1])", "exec(sys.argv[1].replace('cv2', 'c0'))"
    )
    python.write_text(program)
    uv.parent.mkdir()
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}{os.pathsep}{os.environ['PATH']}")
    code, said = make("setup", f"VENV={venv}")
    assert code != 0
    assert (
        "OpenCV cannot be loaded (ModuleNotFoundError: No module named 'c0'): install the" in said
    )
    assert "apt-get install libgl1 libglib2.0-0" in said
    assert not (venv / ".installed").exists()


def test_a_home_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv, home = tmp_path / "venv", tmp_path / "file" / "bento ml"
    (tmp_path / "file").touch()
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / ".installed").touch()
    monkeypatch.setenv("BENTOML_HOME", str(home))
    code, said = make("serve", f"VENV={venv}")
    assert code != 0
    assert said.splitlines()[0] == (
        f"{home} cannot be written: set BENTOML_HOME and VISIONLOOP_HOME to folders of your own."
    )
