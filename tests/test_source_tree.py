"""Child processes find our code from its own place."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import ROOT, module_command, module_environment

PACKAGES = ("api", "inference", "models_store", "training")


@pytest.fixture
def decoys(tmp_path: Path) -> Path:
    """A folder whose modules are named like ours; importing one is an error."""
    for name in ("settings", "errors", "inference", "api", "models_store", "training"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    return tmp_path


@pytest.mark.parametrize("module", ["worker", "models_store"])
def test_the_current_folder_does_not_matter(decoys: Path, module: str) -> None:
    child = subprocess.run(
        module_command(module, "--help"),
        cwd=decoys,
        env=module_environment(),
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    assert f"python -m {module}" in child.stdout


def test_the_path_of_the_parent_is_kept_behind_ours() -> None:
    variables = module_environment({"PYTHONPATH": "/srv/more", "HOME": "/root"})
    assert variables == {"PYTHONPATH": f"{ROOT}{os.pathsep}/srv/more", "HOME": "/root"}
    assert module_environment({})["PYTHONPATH"] == str(ROOT)


def test_the_code_stays_on_the_path_of_whoever_loads_the_service(tmp_path: Path) -> None:
    """BentoML's loader takes it off again; what is imported later must still be found."""
    code = (
        "import sys; from bentoml._internal.service.loader import import_service; "
        f"import_service('service:VisionLoop', working_dir={str(ROOT)!r}); "
        "import evaluation.store as late; print(late.__file__)"
    )
    variables = module_environment({**os.environ, "VISIONLOOP_HOME": str(tmp_path)})
    del variables["PYTHONPATH"]
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert child.stdout.strip() == str(ROOT / "evaluation" / "store.py"), child.stderr


START = """
import sys
sys.path[0] = sys.argv[1]
from bentoml._internal.service.loader import import_service
import_service("service:VisionLoop", working_dir=sys.argv[2])
sys.modules["service"].VisionLoop.inner.prepare()
"""


@pytest.mark.parametrize(
    ("working_dir", "name", "value"),
    [
        ("", "VISIONLOOP_HOME", "odd home"),
        (".", "VISIONLOOP_PRETRAINED", "../odd home"),
        ("", "VISIONLOOP_DATA_ROOTS", "/srv,odd home"),
        ("", "BENTOML_HOME", "odd home"),
        ("odd home/code", "--working-dir", ""),
    ],
)
def test_a_relative_path_is_refused_before_anything_is_made(
    tmp_path: Path, working_dir: str, name: str, value: str
) -> None:
    """As `bentoml serve` of a Bento does: the service is loaded from elsewhere, then prepared."""
    homes = {"VISIONLOOP_HOME": str(tmp_path / "home"), "BENTOML_HOME": str(tmp_path / "bento")}
    given = {} if name.startswith("--") else {name: value}
    before = set(ROOT.iterdir())
    child = subprocess.run(
        [sys.executable, "-c", START, working_dir, str(ROOT)],
        cwd=tmp_path,
        env=os.environ | homes | given,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1] == (
        f"{name}: a relative path. The processes of the service run in the folder of its code; "
        "give the absolute path."
    )
    assert set(ROOT.iterdir()) == before
    assert not (tmp_path / "home").exists()


def test_only_one_place_makes_commands_of_modules() -> None:
    elsewhere = [
        str(file.relative_to(ROOT))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if any(
            isinstance(node, ast.Constant) and node.value == "-m"
            for node in ast.walk(ast.parse(file.read_text()))
        )
    ]
    assert elsewhere == []
