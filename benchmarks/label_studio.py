"""Tests this service with the real Label Studio: `python -m benchmarks.label_studio`.

Installs Label Studio into a cache folder, and starts Label Studio and our server on loopback, with
temporary folders. In two projects, one with boxes and one with polygons, the test connects our
backend through Label Studio's API with a token, retrieves predictions and compares them with
/infer, submits annotations that must arrive in a dataset, and starts a training that must publish
a model. If Chromium is installed, it also writes a screenshot of the editor. The exit code is 1 if
a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from benchmarks.label_studio_browser import screenshot
from benchmarks.server import PYTHON, ROOT, free_port, serving
from formats.geometry import Outline, as_outlines, fill_parts, overlap
from formats.label_studio import from_label_studio
from shell import Parser
from synthetic.scenes import draw_scene
from synthetic.shapes import write_shapes

VERSION = "1.23.2"
CACHE = Path.home() / ".cache" / "visionloop" / f"label-studio-{VERSION}"
TOKEN = "loopback-token"
USER = {"email": "annotator@example.com", "password": secrets.token_urlsafe(12)}

BOXES = """<View><Image name="photo" value="$image"/>
<RectangleLabels name="sign" toName="photo">{labels}</RectangleLabels></View>"""
POLYGONS = """<View><Image name="picture" value="$image"/>
<PolygonLabels name="shape" toName="picture"><Label value="Disc" predicted_values="circle"/>
<Label value="square" background="green"/><Label value="triangle" background="blue"/>
</PolygonLabels></View>"""
WRONG = """<View><Image name="photo" value="$image"/><RectangleLabels name="box" toName="photo">
<Label value="Automobile"/></RectangleLabels></View>"""


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    add = parser.add_argument
    add("--pictures", type=int, default=12, help="number of images in each project (12)")
    add("--epochs", type=int, default=40, help="epochs of the model that finds polygons (40)")
    add("--out", type=Path, default=Path("."), help="folder for the screenshots (.)")
    add(
        "--executable",
        type=Path,
        help="path of an installed label-studio; default: install it into a cache folder",
    )
    add("--minutes", type=int, default=40, help="time limit of the whole test in minutes (40)")
    options = parser.parse_args()
    for end in (signal.SIGTERM, signal.SIGALRM):  # sys.exit also ends the servers started here
        signal.signal(end, lambda *_: sys.exit("The test was ended before it was complete."))
    signal.alarm(60 * options.minutes)
    executable = options.executable or installed(CACHE)
    checks = Checks()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="label-studio-")))
        studio = stack.enter_context(label_studio(executable, folder / "studio"))
        tool = Studio(studio.url)
        env = {
            "VISIONLOOP_HOME": str(folder / "home"),
            "BENTOML_HOME": str(folder / "bento"),
            "BENTOML_DO_NOT_TRACK": "true",
            "VISIONLOOP_DEVICE": "cpu",
            "VISIONLOOP_ALLOW_DOWNLOAD": "never",
            "VISIONLOOP_TOKEN": TOKEN,
            "VISIONLOOP_LABEL_STUDIO_URL": studio.url,
            "VISIONLOOP_LABEL_STUDIO_TOKEN": tool.personal_token(),
        }
        port = free_port()
        command = [PYTHON, "-m", "bentoml", "serve", "service:VisionLoop", "--port", str(port)]
        ours = stack.enter_context(serving(command, port, folder / "log", "/readyz", env))
        client = stack.enter_context(
            httpx.Client(
                base_url=ours.url, timeout=120, headers={"Authorization": f"Bearer {TOKEN}"}
            )
        )
        try:
            walk(options, checks, tool, client, ours.url, folder)
        except Exception:
            print((folder / "log").read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
    sys.exit(checks.report())


class Checks:
    """Prints the result of each check, and counts the failed ones."""

    def __init__(self) -> None:
        self.failed = 0

    def see(self, right: bool, what: str) -> None:
        self.failed += not right
        print(f"{'ok  ' if right else 'FAIL'}  {what}", flush=True)

    def report(self) -> int:
        print(f"{self.failed} checks failed" if self.failed else "all checks passed")
        return int(self.failed > 0)


def walk(
    options: argparse.Namespace,
    checks: Checks,
    tool: Studio,
    client: httpx.Client,
    url: str,
    folder: Path,
) -> None:
    """Do all steps, in the order in which a person does them."""
    teach_polygons(client, folder / "shapes", options.epochs)
    names = client.get("/models/traffic_signs_yolov8n").json()["classes"]
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    projects = [
        ("Street signs", BOXES.format(labels=labels), scenes(options.pictures), 0.98),
        ("Shapes", POLYGONS, shapes(folder / "large", options.pictures), 0.95),
    ]
    for title, config, pictures, least in projects:
        project = tool.project(title, config)
        extra = {"epochs": 2, "imgsz": 160, "batch": 4}
        backend = tool.connect(project, url, extra)
        checks.see(
            backend["state"] == "CO", f"{title}: connected, model {backend['model_version']}"
        )
        tasks = tool.upload(project, pictures)
        began = time.perf_counter()
        found = tool.predictions(project)
        seconds = time.perf_counter() - began
        checks.see(len(found) == len(tasks), f"{title}: {len(found)} predictions, {seconds:.1f} s")
        compare(checks, client, title, tasks, found, least, backend["model_version"])
        task = max(tasks, key=lambda task: len(found[task]["result"]))
        picture = options.out / f"label-studio-{title.lower().replace(' ', '-')}.png"
        if screenshot(tool.url, USER, project, task, picture):
            print(f"      screenshot: {picture}")
        submit(checks, tool, client, title, project, tasks, found)
        train(checks, tool, client, title, backend["id"])
    project = tool.project("Cars", WRONG)
    backend = tool.connect(project, url, {})
    tool.upload(project, scenes(1))
    answer = tool.test_request(backend["id"])
    message = answer["response"][0]["message"]
    checks.see("Automobile" in message and not answer["response"][0]["result"], message)
    checks.see(backend["model_version"] == "no model fits", "Cars: shown as 'no model fits'")


def compare(
    checks: Checks,
    client: httpx.Client,
    title: str,
    tasks: dict[int, bytes],
    found: dict[int, dict[str, Any]],
    least: float,
    model: str,
) -> None:
    """Compare every region of Label Studio's predictions with the object that /infer finds."""
    worst, regions, missed = 1.0, 0, 0
    for task, picture in tasks.items():
        answer = client.post("/infer", files={"image": picture}, data={"model_id": model}).json()
        size = answer["image"]["width"], answer["image"]["height"]
        marked = from_label_studio(found[task]["result"], size=size)
        missed += len(answer["predictions"]) - len(marked)
        for thing, seen in zip(marked.objects, answer["predictions"], strict=False):
            regions += 1
            if thing.parts:
                rings = seen.get("polygon_parts") or [seen["polygon"]]
                parts = fill_parts(as_outlines(thing.parts), *size)
                truth = fill_parts([Outline(np.array(r, np.float32)) for r in rings], *size)
                worst = min(worst, overlap(parts, truth))
            else:
                assert thing.box is not None
                worst = min(worst, box_iou(thing.box, tuple(seen["bounding_box"].values())))
    checks.see(
        regions > 0 and missed == 0 and worst >= least,
        f"{title}: {regions} regions agree with /infer ({missed} missing), lowest IoU {worst:.3f}",
    )


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    whole = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / whole if whole else 1.0


def submit(
    checks: Checks,
    tool: Studio,
    client: httpx.Client,
    title: str,
    project: int,
    tasks: dict[int, bytes],
    found: dict[int, dict[str, Any]],
) -> None:
    """Submit all predictions as annotations, change one and delete one.

    The dataset must have exactly the resulting images and objects.
    """
    keys = {}
    for task in tasks:
        regions = found[task]["result"]
        body = {"result": regions, "prediction": found[task]["id"]}
        keys[task] = tool.post(f"/api/tasks/{task}/annotations/", body)["id"]
    first, last = min(keys), max(keys)
    tool.patch(f"/api/annotations/{keys[first]}/", {"result": found[first]["result"][:1]})
    tool.delete(f"/api/annotations/{keys[last]}/")
    kept = [task for task in tasks if task != last]
    expected = sum(len(found[task]["result"]) for task in kept if task != first)
    expected += len(found[first]["result"][:1])

    def arrived() -> dict[str, Any] | None:
        listed = client.get("/api/datasets").json()["datasets"]
        card = next((card for card in listed if card["name"] == title), None)
        if card is None:
            return None
        images = sum(split["images"] for split in card["splits"].values())
        objects = sum(split["objects"] for split in card["splits"].values())
        return card if (images, objects) == (len(kept), expected) else None

    began = time.perf_counter()
    card = until(arrived, 60)
    checks.see(
        card is not None,
        f"{title}: {len(kept)} images with {expected} objects are in the dataset "
        f"{card['id'] if card else '?'} after {time.perf_counter() - began:.1f} s",
    )


def train(checks: Checks, tool: Studio, client: httpx.Client, title: str, backend: int) -> None:
    known = {job["job_id"] for job in client.get("/jobs").json()["jobs"]}
    tool.post(f"/api/ml/{backend}/train", {})

    def ended() -> dict[str, Any] | None:
        jobs = client.get("/jobs?kind=training").json()["jobs"]
        new = [job for job in jobs if job["job_id"] not in known]
        return new[0] if new and new[0]["finished_at"] else None

    job = until(ended, 600) or {}
    published = job.get("model_id") or ""
    models = [model["id"] for model in client.get("/models").json()["models"]]
    checks.see(
        published in models,
        f"{title}: {job.get('mode')} training {job.get('status')} on {job.get('base_model')}, "
        f"published {published} {job.get('error') or ''}",
    )


def until(look: Callable[[], Any], seconds: float) -> Any:
    """Call `look` until it returns something; returns None if the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.5)
    return None


def teach_polygons(client: httpx.Client, folder: Path, epochs: int) -> None:
    """Train a small segmentation model on drawn shapes, and promote it."""
    write_shapes(folder, "segment", 120, 24, imgsz=128)
    packed = shutil.make_archive(str(folder), "zip", folder)
    with open(packed, "rb") as file:
        answer = client.post("/api/datasets", files={"file": ("shapes.zip", file)})
    body = {"task": "segment", "model_type": "n", "data_path": answer.json()["id"]}
    body |= {"epochs": epochs, "imgsz": 128, "batch": 16, "patience": 0, "name": "shapes"}
    task = client.post("/api/training/regular", json=body).json()["task_id"]
    began = time.monotonic()

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = client.get(f"/api/training/tasks/{task}").json()
        return found if found["status"] in ("completed", "failed") else None

    done = until(ended, 1200)
    assert done is not None
    assert done["status"] == "completed", done
    client.post(f"/models/{done['model_id']}/promote", json={}).raise_for_status()
    print(f"      trained {done['model_id']} in {time.monotonic() - began:.0f} s", flush=True)


def scenes(count: int) -> list[bytes]:
    return [encoded(draw_scene(np.random.default_rng(100 + i), 640, 480)[0]) for i in range(count)]


def shapes(folder: Path, count: int) -> list[bytes]:
    """Drawn images of shapes, larger than the training images.

    The outlines of /infer lie half a pixel further inside; in larger images this lowers the IoU
    less.
    """
    write_shapes(folder, "segment", 1, count, imgsz=512, seed=1)
    return [path.read_bytes() for path in sorted((folder / "images/val").glob("*.jpg"))]


def encoded(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", pixels[..., ::-1])[1].tobytes()


def installed(cache: Path) -> Path:
    """The command of Label Studio, installed into its own virtual environment if necessary."""
    command = cache / "bin" / "label-studio"
    if not command.exists():
        print(f"      installing Label Studio {VERSION} into {cache} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(cache)], check=True)
        pip = [str(cache / "bin" / "pip"), "install", "--quiet", f"label-studio=={VERSION}"]
        subprocess.run(pip, check=True)
    return command


def label_studio(executable: Path, folder: Path) -> Any:
    """A running Label Studio with a user account; it listens on loopback and may call loopback."""
    folder.mkdir(parents=True)
    port = free_port()
    env = {
        "HOME": str(folder),
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "SSRF_PROTECTION_ENABLED": "false",  # otherwise no webhooks to private addresses
        "ML_BLOCK_LOCAL_IP": "false",  # otherwise no ML backends at private addresses
        "WEBHOOK_TIMEOUT": "10",  # seconds, for a busy machine; the default is 1
    }
    command = ["nice", "-n", "10", str(executable), "start", "--no-browser"]
    command += ["--internal-host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)]
    command += ["--username", USER["email"], "--password", USER["password"]]
    return serving(command, port, folder.with_suffix(".log"), "/health", env, 600)


class Studio:
    """Label Studio's API, used with a login session, as its own web pages do."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=120, follow_redirects=True)
        self.client.get("/user/login/")
        form = USER | {"csrfmiddlewaretoken": self.client.cookies["csrftoken"]}
        self.client.post("/user/login/", data=form, headers={"Referer": url}).raise_for_status()

    def request(self, method: str, path: str, **content: Any) -> Any:
        headers = {"X-CSRFToken": self.client.cookies["csrftoken"], "Referer": self.url}
        answer = self.client.request(method, path, headers=headers, **content)
        if answer.status_code >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def post(self, path: str, body: Any) -> Any:
        return self.request("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self.request("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def personal_token(self) -> str:
        return str(self.post("/api/token/", {})["token"])

    def project(self, title: str, config: str) -> int:
        return int(self.post("/api/projects/", {"title": title, "label_config": config})["id"])

    def connect(self, project: int, url: str, extra: dict[str, Any]) -> Any:
        """Connect our backend with Basic authentication.

        Label Studio then creates a webhook, which is given our token. Returns the backend.
        """
        body = {"url": f"{url}/label-studio", "project": project, "title": "VisionLoop"}
        body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": "visionloop"}
        body |= {"basic_auth_pass": TOKEN, "extra_params": extra}
        backend = self.post("/api/ml", body)
        (hook,) = self.request("GET", f"/api/webhooks/?project={project}")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.patch(f"/api/webhooks/{hook['id']}/", {"headers": headers})
        return backend

    def upload(self, project: int, pictures: list[bytes]) -> dict[int, bytes]:
        """Import images into a project. Returns task id → image file."""
        files = [(f"f{i}", (f"{i:04}.jpg", data)) for i, data in enumerate(pictures)]
        self.request("POST", f"/api/projects/{project}/import", files=files)
        listed = self.request("GET", f"/api/tasks?project={project}&page_size=500")["tasks"]
        by_name = {t["data"]["image"].rpartition("-")[2]: t["id"] for t in listed}
        return {by_name[f"{i:04}.jpg"]: data for i, data in enumerate(pictures)}

    def predictions(self, project: int) -> dict[int, dict[str, Any]]:
        """Retrieve predictions as the Data Manager's action does. Returns task id → prediction."""
        action = f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}"
        every = {"conjunction": "and", "items": []}
        chosen = {"selectedItems": {"all": True, "excluded": []}, "filters": every, "ordering": []}
        self.post(action, chosen)
        rows = self.request("GET", f"/api/predictions?project={project}")
        return {row["task"]: row for row in rows}

    def test_request(self, backend: int) -> Any:
        """The answer that the button 'Send Test Request' shows."""
        return self.post(f"/api/ml/{backend}/predict/test?random=true", {})


if __name__ == "__main__":
    os.chdir(ROOT)
    print(json.dumps({"label_studio": VERSION}))
    main()
