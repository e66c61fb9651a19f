"""What import-linter cannot see: the modules of the root, and how many files a folder has."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = frozenset(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
)
BELOW_ALL = {  # module → what else of ours it may import
    "access_log": {"errors", "process_log"},
    "cores": set(),
    "disk_space": {"errors", "settings"},
    "errors": {"request_id"},
    "field_names": {"errors"},
    "nesting": {"errors"},
    "files": set(),
    "home_paths": set(),
    "shell": {"database", "errors", "settings"},
    "short_ids": {"errors"},
    "process_log": {"request_id", "settings", "tracing"},
    "request_id": set(),
    "setting_values": set(),
    "settings": {"field_names", "home_paths", "setting_values"},
    "source_tree": set(),
    "tracing": set(),
    "zip_bounds": set(),
    "database": {
        "database_errors",
        "errors",
        "exclusive",
        "files",
        "home_paths",
        "migrations",
        "postgres",
        "settings",
    },
    "database_errors": {"disk_space", "errors"},
    "exclusive": {"database_errors", "files", "postgres"},
    "postgres": {"database_errors", "errors", "postgres_connection"},
    "postgres_connection": set(),
}
TOPS = {  # module → the packages that it may import
    "cli": {"shell", "source_tree"},
    "service": {"api", "engines", "inference", "jobs", "serving", "settings"},
    "worker": PACKAGES - {"api", "serving"} | {"database", "errors", "settings"},
}
MOST = 25  # .py files of a folder, __init__.py among them


def imported(file: Path) -> Iterator[str]:
    """The first part of every module that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)


def own_names() -> set[str]:
    return {file.stem for file in ROOT.glob("*.py")} | PACKAGES | {"migrations", "tests"}


def test_every_package_is_checked_and_packed_into_the_bento() -> None:
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert folders - {"benchmarks", "docs_reference", "migrations", "tests"} == PACKAGES
    packed = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    assert {f"{name}/**" for name in PACKAGES | {"migrations"}} <= set(packed)


@pytest.mark.parametrize("module", sorted(BELOW_ALL))
def test_modules_of_the_root_import_nothing_above_them(module: str) -> None:
    assert set(imported(ROOT / f"{module}.py")) & own_names() <= BELOW_ALL[module]


@pytest.mark.parametrize("module", sorted(TOPS))
def test_what_starts_a_process_imports_what_it_wires(module: str) -> None:
    assert set(imported(ROOT / f"{module}.py")) & own_names() <= TOPS[module]


def test_no_module_of_the_root_is_forgotten() -> None:
    assert {file.stem for file in ROOT.glob("*.py")} == set(BELOW_ALL) | set(TOPS)


def test_nothing_imports_what_starts_a_process() -> None:
    tops = {"cli", "service", "worker", "tests", "benchmarks", "docs_reference"}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert not set(imported(file)) & tops, file


def test_no_folder_of_the_source_has_too_many_files() -> None:
    for package in PACKAGES | {"benchmarks", "docs_reference"}:
        for folder in (ROOT / package, *(ROOT / package).rglob("*/")):
            count = len(list(folder.glob("*.py")))
            assert count <= MOST, f"{folder.relative_to(ROOT)} has {count} files"
