"""The built Bento, served by its tag in a folder that holds none of our code but its names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import psutil
import pytest

from tests.api.serving import BENTOML, ROOT, Server, environment
from tests.drawn_data import SHAPES, write_shapes
from tests.inference.closeness import assert_answers_close
from tests.patience import PATIENCE
from tests.small_models import NAMES, checkpoint, network

DECOYS = (
    "api.py", "errors.py", "inference.py", "service.py", "settings.py", "source_tree.py",
    "training/__init__.py",
)  # fmt: skip
IMAGE = ROOT / "docs" / "street_scene.jpg"
SHELL = re.compile(r"^PYTHONPATH=\$\(bentoml get \S+ -o path\)/src python -m .+$", re.MULTILINE)


class BuiltServer(Server):
    """`bentoml serve visionloop:latest`."""

    target = "visionloop:latest"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A current folder whose modules are named like ours; importing one is an error."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in DECOYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise SystemExit('This is the wrong {name}.')\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data")
    write_shapes(data, "classify", 24, 6, 64)
    home = tmp_path_factory.mktemp("bento")
    subprocess.run(
        [BENTOML, "build"], cwd=ROOT, env=environment(home), check=True, capture_output=True
    )
    running = BuiltServer(home, VISIONLOOP_DATA_ROOTS=str(data))
    running.folder = folder
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


def shell(command: str, server: Server, folder: Path) -> str:
    """What a command prints, typed in `folder` with the environment active."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = server.environment | {"PATH": path}
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_process_runs_the_code_of_the_bento(server: Server) -> None:
    (source,) = Path(server.environment["BENTOML_HOME"]).glob("bentos/visionloop/*/src")
    assert server.process is not None
    processes = [psutil.Process(server.process.pid), *server.workers().values()]
    assert len(processes) == 5
    assert {process.cwd() for process in processes} == {str(source.resolve())}


def test_an_image_gets_boxes(server: Server, client: httpx.Client) -> None:
    answer = client.post("/infer", files={"image": IMAGE.read_bytes()}).json()
    assert len(answer["predictions"]) > 1
    assert all(found["bounding_box"] for found in answer["predictions"])
    with bentoml.SyncHTTPClient(server.url, timeout=PATIENCE) as native:
        assert_answers_close(native.predict(image=IMAGE)["predictions"], answer["predictions"])


def test_a_training_ends_in_a_version_that_answers(server: Server, client: httpx.Client) -> None:
    body = {
        "model_id": "n",
        "dataset_path": server.environment["VISIONLOOP_DATA_ROOTS"],
        "epochs": 1,
        "parameters": {"task": "classify", "imgsz": 64, "name": "kinds", "hyper": {"workers": 0}},
    }
    job_id = client.post("/train", json=body).json()["job_id"]
    job: dict[str, Any] = {"status": "queued"}
    deadline = time.monotonic() + PATIENCE
    while job["status"] in ("queued", "running") and time.monotonic() < deadline:
        time.sleep(0.2)
        job = client.get(f"/train/{job_id}").json()
    assert job["status"] == "completed", (job, client.get(f"/jobs/{job_id}/logs").json())
    fields = {"model_id": job["result_model_id"]}
    answer = client.post("/infer", files={"image": IMAGE.read_bytes()}, data=fields).json()
    assert answer["model_id"] == job["result_model_id"]
    assert {found["label"] for found in answer["predictions"]} <= set(SHAPES)
    assert answer["predictions"]


def test_the_shell_commands_work_as_the_readme_has_them(
    server: Server, client: httpx.Client, folder: Path
) -> None:
    (documented,) = SHELL.findall((ROOT / "README.md").read_text())
    assert documented.endswith("python -m models_store list")
    listed = shell(documented, server, folder)
    models = client.get("/models").json()["models"]
    assert len(models) > 1
    assert all(model["id"] in listed for model in models)
    others = documented.replace("-m models_store list", f"-P -m training list --url {server.url}")
    assert "completed" in shell(others, server, folder)


def test_its_folder_may_go_while_it_serves(
    server: Server, client: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    """And a checkpoint is imported, which takes two child processes."""
    assert sorted(DECOYS) == sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    ), "nothing is written there"
    shutil.rmtree(folder)
    path = checkpoint(tmp_path / "shapes.pt", network("detect"))
    with path.open("rb") as file:
        answer = client.post("/models/import", files={"file": file})
    assert answer.status_code == 201, answer.text
    assert answer.json()["classes"] == list(NAMES)
    fields = {"model_id": answer.json()["id"]}
    assert client.post("/infer", files={"image": IMAGE.read_bytes()}, data=fields).is_success


def test_it_stops_and_leaves_no_process(server: Server) -> None:
    server.stop()
    home = server.environment["VISIONLOOP_HOME"]
    family = psutil.process_iter(["name", "environ"])
    assert not [one for one in family if (one.info["environ"] or {}).get("VISIONLOOP_HOME") == home]
