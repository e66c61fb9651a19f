"""What is installed: the lock, the loose files that people edit, and the Pythons they are for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")


def loose(name: str) -> Iterator[Requirement]:
    """The requirements of a file that people edit, those of the files that it names included."""
    for line in (ROOT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            yield from loose(line[3:])
        elif line and not line.startswith("--"):
            yield Requirement(line)


def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """Each entry of a lock file with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    entries = [
        line.split("--hash=") for line in text.splitlines() if line[:1] not in ("", "#", " ")
    ]
    return [(Requirement(words[0]), [word.strip() for word in words[1:]]) for words in entries]


def installed(name: str, python: str, machine: str) -> dict[str, str]:
    """Versions by package that a lock file gives on Linux."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    return {
        canonicalize_name(entry.name): str(entry.specifier).removeprefix("==")
        for entry, _ in locked(name)
        if entry.marker is None or entry.marker.evaluate(environment)
    }


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_has_what_the_loose_file_asks_for(name: str, python: str, machine: str) -> None:
    versions = installed(f"{name}.lock", python, machine)
    wrong = [
        f"{asked} (locked: {versions.get(canonicalize_name(asked.name), 'not at all')})"
        for asked in loose(f"{name}.txt")
        if not asked.specifier.contains(versions.get(canonicalize_name(asked.name), "0.dev0"))
    ]
    assert wrong == [], "run `make lock`"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_tests_run_with_the_versions_that_the_bento_installs(python: str, machine: str) -> None:
    bento = installed("requirements.lock", python, machine)
    assert bento.items() <= installed("requirements-dev.lock", python, machine).items()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_holds_hashes_and_no_places(name: str) -> None:
    for entry, hashes in locked(name):
        assert re.fullmatch(r"==[\w.!+]+", str(entry.specifier)), entry
        assert hashes, entry
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), entry
    text = (ROOT / name).read_text()
    assert re.findall(r"--(?!hash=)[\w-]+|\w+://|^[./].*|@ .*", text, re.MULTILINE) == []


def test_without_cuda_the_versions_are_the_same() -> None:
    asked = {each.name: each for each in loose("requirements.txt")}
    without = list(loose("requirements-cpu.txt"))
    assert {each.name for each in without} == {"torch", "torchvision"}
    for each in without:
        assert str(each.specifier) == f"{asked[each.name].specifier}+cpu"


def test_everything_names_the_same_pythons() -> None:
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    setup = (ROOT / "setup.sh").read_text()
    assert re.search(r"^oldest=(\d+)", setup, re.MULTILINE)[1] == oldest[2:]  # type: ignore[index]
    assert re.search(r"^newest=(\d+)", setup, re.MULTILINE)[1] == newest[2:]  # type: ignore[index]
    assert f"--python-version {oldest} " in (ROOT / "Makefile").read_text()
    assert f"Python {oldest} to {newest}" in (ROOT / "README.md").read_text()
    tools = (ROOT / "pyproject.toml").read_text()
    assert f'target-version = "py{oldest.replace(".", "")}"' in tools
    assert f'python_version = "{oldest}"' in tools
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    assert bento["python"]["requirements_txt"] == "./requirements.lock"
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in PYTHONS
