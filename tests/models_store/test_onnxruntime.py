"""ONNX Runtime reports nothing, and leaves nothing in the user's home."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from models_store import ultralytics_env
from source_tree import ROOT, module_environment

ONLY = Path("models_store/_onnxruntime.py")
PACKAGES = ("api", "benchmarks", "formats", "inference", "models_store", "tests", "training")

RUN = """
import numpy
from onnx import TensorProto, helper
{imported}
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])
session = onnxruntime.InferenceSession(model.SerializeToString())
session.run(None, {{"x": numpy.ones(1, "float32")}})
"""


def left_by(folder: Path, imported: str, **variables: str) -> list[Path]:
    """What a process without our variables leaves that imports it so and runs a session."""
    folder.mkdir()
    # Of the tests' own variables none: CI switches the reports off, too.
    environment = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)} | variables
    command = [sys.executable, "-c", RUN.format(imported=imported)]
    subprocess.run(command, env=module_environment(environment), check=True, cwd=ROOT)
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_session_leaves_nothing_to_report(tmp_path: Path) -> None:
    assert left_by(tmp_path / "bare", "import onnxruntime"), "else this shows nothing"
    ours = "from models_store._onnxruntime import onnxruntime"
    assert left_by(tmp_path / "ours", ours) == []
    assert left_by(tmp_path / "told", ours, ORT_DISABLE_TELEMETRY="0") == []


def test_nor_does_one_that_ultralytics_opens(tmp_path: Path) -> None:
    told = ultralytics_env.environment(tmp_path / "home")
    assert left_by(tmp_path / "ours", "import onnxruntime", **told) == []


def test_nobody_imports_it_from_elsewhere() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "onnxruntime" for name in names):
                found.append(file.relative_to(ROOT))
    assert len(files) > 100
    assert found == [ONLY]
