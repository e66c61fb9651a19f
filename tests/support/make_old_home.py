"""Makes `old_home.tar.gz`, with a server of the version whose tree is the current folder.

    git worktree add --detach OLD 5881e4d
    cd OLD
    export PYTHONPATH=.
    python REPOSITORY/tests/support/make_old_home.py /tmp/visionloop-old-home OUT.tar.gz

The first argument is the folder that the server's two homes are made in; absolute paths in the
database begin with it. Everything is made over HTTP. The archive has no weights, no engines and no
checkpoints: they are large, and `test_old_home.py` reads records only. `answers.json` in it is what
that server answered for every GET route just before it was stopped.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import json
import os
import shutil
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx

HEAVY = (".safetensors", ".onnx", ".xml", ".bin", ".pt", ".png", ".lock")
TRANSIENT = (
    "home/ultralytics",
    "home/run",
    "home/cache",
    "home/scratch",
    "bento/task_result",
    "log",
)
SLOTS = 2  # trainings at once
WAIT = 900.0  # seconds for one job
CONFIG = """<View><Image name="i" value="$image"/><RectangleLabels name="r" toName="i">
<Label value="circle"/><Label value="square"/></RectangleLabels></View>"""
PROJECT = {"id": 7, "title": "Shapes", "created_at": "2026-11-22T03:28:08Z", "label_config": CONFIG}


class Client:
    """The old server's REST API; a request that is not answered as expected ends the script."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=300)

    def ask(self, method: str, path: str, status: int = 200, **options: Any) -> Any:
        answer = self.http.request(method, path, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def until(self, job_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.ask("GET", f"/jobs/{job_id}")
            assert job["status"] not in ("failed", "stopped"), job
            if reached(job):
                return job
            time.sleep(0.5)
        raise AssertionError(f"job {job_id} is still {job['status']}")

    def completed(self, job_id: str) -> dict[str, Any]:
        return self.until(job_id, lambda job: job["status"] == "completed")


def zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def annotated(client: Client, folder: Path) -> dict[str, str]:
    """Datasets: uploaded and corrected, pre-labelled, sent by Label Studio."""
    shapes = importlib.import_module("tests.drawn_data")
    small = importlib.import_module("tests.small_models")
    shapes.write_shapes(folder / "shapes", "detect", train=8, val=4, imgsz=64)
    shapes.write_shapes(folder / "classes", "classify", train=9, val=6, imgsz=64, seed=1)
    found = {}
    for name in ("shapes", "classes"):
        file = {"file": (f"{name}.zip", zipped(folder / name))}
        found[name] = client.ask("POST", "/api/datasets", 201, files=file)["id"]
    for name, task in (("base", "detect"), ("classifier", "classify")):
        path = small.checkpoint(folder / f"{name}.pt", small.network(task))
        file = {"file": (path.name, path.read_bytes())}
        found[name] = client.ask("POST", "/models/import", 201, files=file)["id"]
    # by their paths: the names of the files are the same in both splits
    labels = {
        "images/train/0001.jpg": "0 0.5 0.5 0.3 0.3\n2 0.2 0.2 0.1 0.1\n",
        "images/train/0002.jpg": "",
    }
    corrections = {"names": ["circle", "square", "triangle"], "labels": labels}
    path = f"/api/datasets/{found['shapes']}/annotations"
    client.ask("POST", path, 201, json=corrections, params={"confirm": True})

    batch = {
        "dataset": found["shapes"],
        "tool": "object_detection",
        "model": found["base"],
        "confidence": 0.001,
        "bands": {"accept": 0.9, "review": 0.001},
        "format": "coco",
        "tiles": "off",
    }
    started = client.ask("POST", "/api/auto_annotate/batch", 202, json=batch)
    client.completed(started["job_id"])
    found["batch"] = started["dataset_id"]
    first = client.ask("GET", "/api/annotation/queue", params={"dataset": found["batch"]})
    labels = {first["queue"][0]["image"]: "0 0.5 0.5 0.25 0.25\n"}
    path = f"/api/datasets/{found['batch']}/annotations"
    corrections = {"names": ["round"], "labels": labels}
    client.ask("POST", path, 201, json=corrections, params={"confirm": True})

    images = sorted((folder / "shapes" / "images" / "train").glob("*.jpg"))[:3]
    for number, image in enumerate(images, 1):
        address = f"data:image/jpeg;base64,{base64.b64encode(image.read_bytes()).decode()}"
        found["label_studio"] = webhook(client, number, address)
    webhook(client, 4, "http://127.0.0.1:1/never.jpg")  # it stays in the inbox
    return found


def webhook(client: Client, number: int, address: str) -> str:
    value = {"x": 10, "y": 20, "width": 40, "height": 30, "rectanglelabels": ["circle"]}
    region = {
        "id": "a",
        "type": "rectanglelabels",
        "from_name": "r",
        "to_name": "i",
        "value": value,
    }
    event = {
        "action": "ANNOTATION_CREATED",
        "project": PROJECT,
        "task": {"id": number, "data": {"image": address}},
        "annotation": {
            "id": 10 + number,
            "result": [region],
            "updated_at": "2026-11-22T03:29:00.000000Z",
        },
    }
    taken: str = client.ask("POST", "/label-studio/webhook", 201, json=event)["dataset"]
    return taken


def judged(client: Client, found: dict[str, str], image: Path) -> None:
    """A finished training, evaluations, a comparison, decisions of the gate, live traffic."""
    body = {
        "model_id": found["base"],
        "dataset_path": found["shapes"],
        "epochs": 2,
        "batch_size": 4,
        "parameters": {"imgsz": 64, "name": "shapes"},
    }
    job = client.ask("POST", "/train", json=body)["job_id"]
    client.completed(job)
    found["first"] = client.ask("GET", f"/train/{job}")["result_model_id"]
    again = body | {"model_id": found["first"], "epochs": 1}
    job = client.ask("POST", "/train", json=again)["job_id"]
    client.completed(job)
    found["second"] = client.ask("GET", f"/train/{job}")["result_model_id"]
    for model in (found["first"], found["second"]):
        body = {"dataset_path": found["shapes"], "split": "val"}
        job = client.ask("POST", f"/metrics/{model}/evaluate", 202, json=body)["job_id"]
        client.completed(job)
    both = {"a": found["first"], "b": found["second"]}
    client.ask("GET", "/metrics/compare", params=both)
    gate = {"dataset": found["shapes"], "min_gain": 1.0}
    for model, status in ((found["first"], "promoted"), (found["second"], "refused")):
        answer = client.ask("POST", f"/models/{model}/promote", json={"gate": gate})
        assert answer["status"] == status, answer
    client.ask("POST", "/models/active", json={"model_id": "shapes"})
    client.ask("POST", "/models/shadow", json={"model_id": found["second"], "fraction": 1})
    for model in ("", "traffic_signs_mobilenet_v2"):  # a classifier's answer is kept in any case
        file = {"image": ("x.jpg", image.read_bytes())}
        client.ask("POST", "/infer", files=file, data={"confidence": "0.001", "model_id": model})


def interrupted(client: Client, found: dict[str, str]) -> None:
    """Trainings of every mode: the first two are under way, the others wait for a slot."""
    body: dict[str, Any] = {
        "task": "detect",
        "data_path": found["shapes"],
        "epochs": 500,
        "imgsz": 64,
        "batch": 4,
        "patience": 0,
    }
    classify: dict[str, Any] = {"task": "classify", "data_path": found["classes"]}
    base, teacher = found["first"], {"teacher_model_path": found["second"]}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "regular": ("regular", {"model_type": base}),
        "distillation": ("distillation", {"model_type": base} | teacher),
        "freeze": ("freeze-strategy", {"model_type": base, "min_epochs_per_stage": 1}),
        "incremental": ("incremental", {"base_model_path": base}),
        "replay": ("incremental", {"base_model_path": base, "old_data_path": found["shapes"]}),
        "old classes": ("incremental", classify | {"base_model_path": found["classifier"]}),
        "scratch": ("regular", classify | {"model_type": "mobilenet_v2", "epochs": 1}),
    }
    for name, (mode, fields) in bodies.items():
        sent = body | {"name": name.replace(" ", "-")} | fields
        found[name] = client.ask("POST", f"/api/training/{mode}", json=sent)["task_id"]
    for name in list(bodies)[:SLOTS]:
        client.until(found[name], lambda job: job["current_epoch"] >= 3)


def stored_paths(get: Callable[[str], httpx.Response]) -> list[str]:
    """Every GET route, with the ids that are in the home."""
    paths = [
        "/models", "/models/active", "/models/shadow", "/metrics", "/train", "/jobs",
        "/api/training/tasks", "/api/tools", "/api/datasets",
        "/api/annotation/queue?limit=50", "/api/annotation/queue?limit=50&kept=false",
        "/api/functions", "/v1/models", "/label-studio/health", "/label-studio/versions",
        "/api/training/select-local-file?file_type=dataset",
    ]  # fmt: skip
    for model in get("/models").json()["models"]:
        name = model["id"]
        paths += [
            f"/models/{name}", f"/models/{model['name']}/decisions", f"/models/{name}/live",
            f"/models/{name}/live/kept", f"/metrics/{name}", f"/metrics/{name}/history",
            f"/metrics/{name}/report", f"/metrics/{name}/report.html",
            f"/metrics/{name}/plots/confusion.png", f"/api/functions/{name}",
            f"/v1/models/{name}/info",
        ]  # fmt: skip
    judged = [m["id"] for m in get("/models").json()["models"] if m["source"]["kind"] == "train"]
    paths.append(f"/metrics/compare?a={judged[0]}&b={judged[1]}")
    for job in get("/jobs").json()["jobs"]:
        number = job["job_id"]
        paths += [
            f"/jobs/{number}", f"/jobs/{number}/logs", f"/train/{number}",
            f"/api/training/tasks/{number}", f"/api/training/tasks/{number}/logs",
        ]  # fmt: skip
    for dataset in get("/api/datasets").json()["datasets"]:
        path = f"/api/datasets/{dataset['id']}"
        paths += [
            path, f"{path}/revisions", f"{path}/waiting", f"{path}/sheet.png",
            f"/api/annotation/queue?dataset={dataset['id']}",
        ]  # fmt: skip
        for form in ("yolo", "coco", "labelme", "voc", "cvat_xml", "label_studio"):
            paths.append(f"{path}/export?format={form}&images=false")
        for row in get(f"{path}/revisions").json()["revisions"]:
            revision = row["revision"]
            paths += [
                f"{path}/revisions/{revision}/diff", f"{path}/export?revision={revision}",
                f"{path}/revisions/{revision}/diff?against=0",
            ]  # fmt: skip
    for path in [path for path in paths if path.endswith(("/report", "/live/kept"))]:
        found = get(path)
        if found.status_code == 200:
            paths += [row["url"] for row in found.json().get("kept", ())]
            worst = [row["file"] for row in found.json().get("worst", ())]
            paths += [f"{path.removesuffix('report')}{file}" for file in worst]
    queue = get("/api/annotation/queue?limit=50").json()["queue"]
    return list(dict.fromkeys([*paths, *(entry["url"] for entry in queue)]))


def answers(app: Any) -> dict[str, Any]:
    """What the application says of what is stored; no job runs and no model is loaded."""

    def get(path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.get(path, timeout=300)

        return asyncio.run(ask())

    return {path: answered(get(path)) for path in stored_paths(get)}


def answered(answer: httpx.Response) -> dict[str, Any]:
    """Status and content; of a zip what is in it, of an image its length."""
    kind = answer.headers.get("content-type", "")
    content: Any = len(answer.content)
    if kind.startswith("application/json"):
        content = answer.json()
    elif kind.startswith("text/"):
        content = answer.text
    elif kind == "application/zip":
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            content = {info.filename: [info.file_size, info.CRC] for info in archive.infolist()}
    return {"status": answer.status_code, "type": kind, "content": content}


def light(folder: Path) -> Iterator[Path]:
    """What is packed; empty folders too, which a dataset may name."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        left_out = path.suffix in HEAVY or "checkpoints" in path.parts or name.startswith(TRANSIENT)
        if not path.is_symlink() and not left_out:
            yield path


def runners() -> dict[str, Any]:
    """Runners that have not started: no model is loaded."""
    return {name: SimpleNamespace(up=False) for name in ("detector", "annotator")}


def recorded(folder: Path) -> dict[str, Any]:
    """What the application of 5881e4d answers over the homes in `folder`, without a server."""
    load = importlib.import_module
    os.environ["BENTOML_HOME"] = str(folder / "bento")
    settings = load("settings").Settings(home=folder / "home", device="cpu")
    database = load("models_store.database").Database(settings)
    registry = load("models_store.registry").Registry(database)
    gateway = load("api.gateway").Gateway(settings, registry, runners())
    try:
        app = load("api.app")
        return answers(app.layered(app.create_app(gateway), settings))
    finally:
        database.close()


def pack(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w:gz") as archive:
        for path in light(folder):
            archive.add(path, path.relative_to(folder), recursive=False)


def main() -> None:
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    drawn = folder / "drawn"
    drawn.mkdir(parents=True)
    serving = importlib.import_module("tests.api.serving")
    server = serving.Server(folder, VISIONLOOP_KEEP_BELOW="1", VISIONLOOP_TRAIN_SLOTS=str(SLOTS))
    server.start()
    client = Client(server.url)
    try:
        found = annotated(client, drawn)
        judged(client, found, next((drawn / "shapes" / "images" / "val").glob("*.jpg")))
        interrupted(client, found)
    finally:
        server.stop()  # SIGTERM: the trainings are interrupted
    shutil.rmtree(drawn)
    (folder / "found.json").write_text(json.dumps(found, indent=1))
    text = json.dumps(recorded(folder), indent=1, sort_keys=True)
    (folder / "answers.json").write_text(text)
    pack(folder, target)


if __name__ == "__main__":
    main()
