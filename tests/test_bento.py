"""The built Bento, served by its tag in a folder that holds none of our code but its names."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import psutil
import pytest

from api.console import pages
from synthetic.shapes import SHAPES
from tests.support.closeness import assert_answers_close
from tests.support.patience import PATIENCE, wait_until
from tests.support.serving import BENTOML, ROOT, Server, environment
from tests.support.shapes import write_shapes
from tests.support.small_models import NAMES, checkpoint, network

DECOYS = (
    "api.py", "errors.py", "inference.py", "service.py", "settings.py", "source_tree.py",
    "training/__init__.py",
)  # fmt: skip
IMAGE = ROOT / "docs" / "street_scene.jpg"
SHELL = re.compile(
    r"^sh \"\$\(COLUMNS=9999 bentoml get \S+ -o path\)/src/bin/visionloop\" .+$", re.MULTILINE
)


class BuiltServer(Server):
    """`bentoml serve visionloop:latest`."""

    target = "visionloop:latest"


def decoys(folder: Path) -> Path:
    """`folder`, with modules that are named like ours; importing one is an error."""
    for name in DECOYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise SystemExit('This is the wrong {name}.')\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The built Bento, served; it leaves no process when it stops."""
    data = tmp_path_factory.mktemp("data")
    write_shapes(data, "classify", 24, 6, 64)
    home = tmp_path_factory.mktemp("bento")
    subprocess.run(
        [*BENTOML, "build"], cwd=ROOT, env=environment(home), check=True, capture_output=True
    )
    running = BuiltServer(home, VISIONLOOP_DATA_ROOTS=str(data))
    running.folder = decoys(tmp_path_factory.mktemp("elsewhere"))
    try:
        yield running.start()
    finally:
        running.stop()
    family = psutil.process_iter(["name", "environ"])
    of_ours = (one for one in family if one.info["environ"])
    name = "VISIONLOOP_HOME"
    left = [one for one in of_ours if one.info["environ"].get(name) == running.environment[name]]
    assert not left


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


def test_no_process_listens_beside_the_port(server: Server) -> None:
    """The patches of the supervisor take effect in a Bento too."""
    assert server.listening() == {server.port}


def shell(command: str, server: Server, folder: Path) -> str:
    """What a command prints, typed in `folder` with the environment active."""
    commands = server.home / "bin"
    commands.mkdir(exist_ok=True)
    (commands / "bentoml").write_text(f'#!/bin/sh\nexec {shlex.join(BENTOML)} "$@"\n')
    (commands / "bentoml").chmod(0o755)
    path = [str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]
    # BentoML breaks long paths into lines of the terminal's width.
    variables = server.environment | {"PATH": os.pathsep.join(path), "COLUMNS": "20"}
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


def test_the_console_is_served(server: Server, client: httpx.Client) -> None:
    (source,) = Path(server.environment["BENTOML_HOME"]).glob("bentos/visionloop/*/src")
    page = client.get("/", headers={"Accept": "text/html"})
    assert page.headers["Content-Security-Policy"] == pages.POLICY
    built = ROOT / "console" / "dist"
    if not built.exists():  # a checkout in which it was never built
        assert page.text == pages.NOT_BUILT
        return
    packed = source / "console" / "dist"
    assert [path.name for path in packed.parent.iterdir()] == ["dist"]
    assert page.text == (packed / "index.html").read_text()
    for file in packed.iterdir():
        assert client.get(f"/console/{file.name}").content == file.read_bytes()


def test_an_image_gets_boxes(server: Server, client: httpx.Client) -> None:
    answer = client.post("/infer", files={"image": IMAGE.read_bytes()}).json()
    assert len(answer["predictions"]) > 1
    assert all(found["bounding_box"] for found in answer["predictions"])
    with bentoml.SyncHTTPClient(server.url, timeout=PATIENCE) as native:
        assert_answers_close(native.predict(image=IMAGE)["predictions"], answer["predictions"])


@pytest.mark.slow
def test_a_training_ends_in_a_version_that_answers(server: Server, client: httpx.Client) -> None:
    body = {
        "model_id": "n",
        "dataset_path": server.environment["VISIONLOOP_DATA_ROOTS"],
        "epochs": 1,
        "parameters": {"task": "classify", "imgsz": 64, "name": "kinds", "hyper": {"workers": 0}},
    }
    job_id = client.post("/train", json=body).json()["job_id"]
    job: dict[str, Any] = {}

    def ended() -> bool:
        job.update(client.get(f"/train/{job_id}").json())
        return job["status"] not in ("queued", "running")

    wait_until(ended, pause=0.2)
    assert job["status"] == "completed", (job, client.get(f"/jobs/{job_id}/logs").json())
    fields = {"model_id": job["result_model_id"]}
    answer = client.post("/infer", files={"image": IMAGE.read_bytes()}, data=fields).json()
    assert answer["model_id"] == job["result_model_id"]
    assert {found["label"] for found in answer["predictions"]} <= set(SHAPES)
    assert answer["predictions"]


def test_the_shell_commands_work_as_the_readme_has_them(
    server: Server, client: httpx.Client, tmp_path: Path
) -> None:
    folder = decoys(tmp_path)
    (documented,) = SHELL.findall((ROOT / "docs/how-to/run-in-a-container.md").read_text())
    assert documented.endswith('/visionloop" models list')
    listed = shell(documented, server, folder)
    models = client.get("/models").json()["models"]
    assert len(models) > 1
    assert all(model["id"] in listed for model in models)
    others = documented.replace("models list", f"jobs list --url {server.url}")
    assert re.search("completed|No jobs yet", shell(others, server, folder))  # in any order


def test_its_folder_may_go_while_it_serves(
    server: Server, client: httpx.Client, tmp_path: Path
) -> None:
    """And a checkpoint is imported, which takes two child processes."""
    if server.folder.exists():
        files = [path for path in server.folder.rglob("*") if path.is_file()]
        written = {str(path.relative_to(server.folder)) for path in files} - set(DECOYS)
        assert written == set()
        shutil.rmtree(server.folder)
    path = checkpoint(tmp_path / "shapes.pt", network("detect"))
    with path.open("rb") as file:
        answer = client.post("/models/import", files={"file": file})
    assert answer.status_code == 201, answer.text
    assert answer.json()["classes"] == list(NAMES)
    fields = {"model_id": answer.json()["id"]}
    assert client.post("/infer", files={"image": IMAGE.read_bytes()}, data=fields).is_success
