"""What `bentoml build` packs: all that the service imports or runs, and no tests or docs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from bentoml._internal.bento.build_config import BentoBuildConfig, BentoPathSpec

from source_tree import ROOT

STARTS = (
    "service.py", "worker.py", "cli.py", "access/__main__.py",
    "models_store/__main__.py", "training/__main__.py",
    "upkeep/__main__.py",
)  # fmt: skip
"""The service, the process of a job, and the shell commands that the README names."""
TEXTS = {
    "LICENSE", "README.md", "requirements.txt", "requirements.lock", "requirements-cpu.txt",
    "requirements-tensorrt.txt",
}  # fmt: skip
OURS_ALONE = {"tests", "docs", "docs_reference", "benchmarks"}
NEVER = ("__pycache__",)


def named_modules(file: Path) -> Iterator[str]:
    """Everything that may be a module's name: imports, late ones too, and strings with a dot,
    by which child processes are started."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            yield node.value


def files_of(module: str, root: Path) -> list[Path]:
    """The files in `root` that importing a module runs; none if it is not ours."""
    found: list[Path] = []
    place = root
    for part in module.split("."):
        if not part.isidentifier():
            return []
        place = place / part
        if place.is_dir():
            found += [path for path in (place / "__init__.py",) if path.is_file()]
        elif place.with_suffix(".py").is_file():
            return [*found, place.with_suffix(".py")]
        else:  # what the module has: a class, a function
            break
    return found


@lru_cache
def needed(root: Path, starts: tuple[str, ...]) -> frozenset[Path]:
    """The files that the service imports, every file of their packages, and what these import:
    any file of a Bento may be run in it."""
    found: set[Path] = set()
    left = {root / start for start in starts}
    while left:
        file = left.pop()
        found.add(file)
        if file.suffix == ".py":
            left |= {path for name in named_modules(file) for path in files_of(name, root)}
        if file.parent != root:
            left |= files_below(root / file.relative_to(root).parts[0])
        left -= found
    return frozenset(found)


@lru_cache
def files_below(package: Path) -> frozenset[Path]:
    every = (path for path in package.rglob("*") if path.is_file())
    return frozenset(path for path in every if not set(NEVER) & set(path.parts))


def packed(root: Path) -> BentoPathSpec:
    """What its `bentofile.yaml` includes."""
    config = BentoBuildConfig.from_file(str(root / "bentofile.yaml")).with_defaults()
    return BentoPathSpec(config.include, config.exclude, str(root))


def missing(root: Path, starts: tuple[str, ...]) -> set[str]:
    """The files of `root` that the service needs and a Bento would lack."""
    spec = packed(root)
    names = {str(file.relative_to(root)) for file in needed(root, starts)}
    return {name for name in names if not spec.includes(name)}


def test_all_that_the_service_imports_is_packed() -> None:
    assert missing(ROOT, STARTS) == set()


def test_no_tests_or_stray_files_are_packed() -> None:
    spec = packed(ROOT)
    places = (path for path in ROOT.iterdir() if not path.name.startswith("."))
    files = [file for path in places for file in (path, *path.rglob("*")) if file.is_file()]
    names = {str(file.relative_to(ROOT)) for file in set(files) - needed(ROOT, STARTS)}
    extra = {name for name in names if spec.includes(name)}
    assert {name for name in extra if "/" not in name} == TEXTS
    assert not {name.split("/")[0] for name in extra} & OURS_ALONE
    assert {name for name in extra if name.startswith("bin/")} == {"bin/visionloop"}
    of_console = {name for name in extra if name.startswith("console/")}
    assert all(name.startswith("console/dist/") for name in of_console)


def write_checkout(root: Path, files: dict[str, str]) -> None:
    """Files, and a bentofile.yaml that packs the root and `api` alone."""
    include = "service: service:Service\ninclude:\n- /*.py\n- api/**\n"
    for name, content in {**files, "bentofile.yaml": include}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize(
    "statement",
    [
        "import jobs.table",
        "from jobs import table",
        "def later():\n    from jobs.table import Table",
        "run_module('jobs.table', [])",
    ],
)
def test_a_package_that_was_forgotten_is_found(tmp_path: Path, statement: str) -> None:
    files = {
        "service.py": "from api import app",
        "api/__init__.py": "",
        "api/app.py": statement,
        "jobs/__init__.py": "",
        "jobs/table.py": "",
        "jobs/schema.sql": "",
        "tests/test_app.py": "",
    }
    write_checkout(tmp_path, files)
    forgotten = {"jobs/__init__.py", "jobs/table.py", "jobs/schema.sql"}
    assert missing(tmp_path, ("service.py",)) == forgotten


def test_a_packed_file_that_the_service_does_not_import_is_read_too(tmp_path: Path) -> None:
    files = {
        "service.py": "from api import app",
        "api/__init__.py": "",
        "api/app.py": "",
        "api/__main__.py": "from docs_reference import pages",
        "docs_reference/__init__.py": "",
        "docs_reference/pages.py": "",
    }
    write_checkout(tmp_path, files)
    unpacked = {"docs_reference/__init__.py", "docs_reference/pages.py"}
    assert missing(tmp_path, ("service.py",)) == unpacked
