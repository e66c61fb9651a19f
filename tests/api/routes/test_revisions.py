"""Corrections, revisions and exports over HTTP, without a server: what a data set becomes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from annotation.entries import image_entry
from annotation.image_records import PRELABEL_RANK
from annotation.priority import descriptor_of, pack
from annotation.revision_builder import build
from dataset.inspection import check
from formats.annotations import FORMATS, Annotations
from formats.capabilities import LACKING
from formats.coco import from_coco
from formats.cvat_xml import from_cvat_xml
from formats.label_studio import from_label_studio
from formats.labelme import from_labelme
from formats.voc import from_voc
from formats.yolo import from_yolo
from models_store.description import Task
from synthetic.shapes import SHAPES
from tests.support.seeds import rng
from tests.support.shapes import write_shapes
from tests.support.training_app import Service


def packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def upload(service: Service, tmp_path: Path, task: Task = "detect") -> str:
    write_shapes(tmp_path / task, task, 6, 3, 64)
    if task != "classify":
        text = (tmp_path / task / "data.yaml").read_text()
        (tmp_path / task / "data.yaml").write_text(text.replace(str(tmp_path / task), "."))
    files = {"file": ("shapes.zip", packed(tmp_path / task))}
    answer = service.call(service.app, "POST", "/api/datasets", files=files)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def export(service: Service, dataset: str, **query: Any) -> zipfile.ZipFile:
    path = f"/api/datasets/{dataset}/export"
    answer = service.call(service.app, "GET", path, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    return archive


def read(archive: zipfile.ZipFile, form: str) -> dict[str, Annotations]:
    """Picture → what an export says of it, by the formats' own readers."""
    names = archive.namelist()
    if form == "label_studio":
        tasks = json.loads(archive.read("tasks.json"))
        results = {task["data"]["image"]: task["annotations"][0]["result"] for task in tasks}
        return {
            Path(name).name: from_label_studio(regions, name, (64, 64), POINTS)
            for name, regions in results.items()
        }
    if form == "coco":
        documents = [json.loads(archive.read(n)) for n in names if n.startswith("annotations/")]
        return {found.image: found for one in documents for found in from_coco(one)}
    if form == "voc":
        read_all = (from_voc(archive.read(n)) for n in names if n.endswith(".xml"))
        return {found.image: found for found in read_all}
    if form == "cvat_xml":
        return {found.image: found for found in from_cvat_xml(archive.read("annotations.xml"))}
    if form == "labelme":
        read_one = [from_labelme(json.loads(archive.read(n)), POINTS) for n in names
                    if n.endswith(".json")]  # fmt: skip
        return {found.image: found for found in read_one}
    import yaml

    description = yaml.safe_load(archive.read("data.yaml"))
    classes = [description["names"][i] for i in range(len(description["names"]))]
    points = POINTS if "kpt_shape" in description else ()
    texts = {Path(n).stem: archive.read(n).decode() for n in names if n.startswith("labels/")}
    return {f"{stem}.jpg": from_yolo(t, classes, (64, 64), "", points) for stem, t in texts.items()}


POINTS = ("0", "1", "2")  # the drawn arrows' keypoints have no names


def shapes_of(found: Annotations) -> list[Any]:
    def rounded(values: Any) -> Any:
        return np.round(np.array(values, float), 1).tolist()

    return sorted(
        (
            thing.label,
            rounded(thing.bounds or ()),
            [rounded(part.outline) for part in thing.parts],
            [(p.name, *rounded((p.x, p.y)), p.visibility) for p in thing.keypoints],
        )
        for thing in found.objects
    )


@pytest.mark.parametrize("task", ["detect", "segment", "pose"])
def test_every_format_says_the_same_and_comes_back(
    service: Service, tmp_path: Path, task: Task
) -> None:
    dataset = upload(service, tmp_path, task)
    wanted: dict[str, Any] | None = None
    for number, form in enumerate((f for f in FORMATS if task not in LACKING.get(f, {})), 1):
        archive = export(service, dataset, format=form, revision=0)
        pictures = [n for n in archive.namelist() if n.endswith(".jpg")]
        assert len(pictures) == 9
        found = {image: shapes_of(marks) for image, marks in read(archive, form).items()}
        assert len(found) == 9  # names that are in both splits are told apart
        wanted = wanted or found
        assert found == wanted, form

        assert archive.fp is not None
        archive.fp.seek(0)
        files = {"file": ("back.zip", archive.fp.read())}
        answer = service.call(
            service.app, "POST", f"/api/datasets/{dataset}/annotations", files=files
        )
        assert answer.status_code == (201 if number == 1 else 200), (form, answer.text)
        answered = answer.json()
        assert answered["revision"] == 1, form  # what a person has said once makes no other
        assert answered["repeated"] == (number > 1)
        assert (answered["received"], answered["unmatched"], answered["new_pictures"]) == (9, [], 0)
        assert answered["corrections"]["original"]["untouched"] == 9, form
        assert answered["new_classes"] == []
    assert check(
        service.gateway.datasets.resolve(f"{dataset}@1"), task, service.gateway.datasets.roots
    ).splits["val"]


def test_an_upload_keeps_its_original_and_its_splits(service: Service, tmp_path: Path) -> None:
    dataset = upload(service, tmp_path)
    folder = service.gateway.datasets.folder / dataset / "data"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    document = {"names": list(SHAPES), "labels": {"images/train/0001.jpg": "2 0.5 0.5 0.2 0.4\n"}}
    answer = service.post(f"/api/datasets/{dataset}/annotations", document)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["received"], answer.json()["data_path"]) == (1, f"{dataset}@1")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    listed = service.get(f"/api/datasets/{dataset}/revisions")["revisions"]
    assert [row["revision"] for row in listed] == [1, 0]
    assert (listed[0]["pictures"], listed[0]["annotated"]) == (9, 1)
    store = service.gateway.datasets
    new, old = (store.open(reference) for reference in (dataset, f"{dataset}@0"))
    assert [len(new.splits[split]) for split in ("train", "val")] == [6, 3]
    assert new.names == old.names == SHAPES
    labels = {path.read_text() for path in new.labels.values()}
    assert "2 0.5 0.5 0.2 0.4\n" in labels
    assert "2 0.5 0.5 0.2 0.4\n" not in {path.read_text() for path in old.labels.values()}
    config = {"data_path": f"{dataset}@0", "model_type": "n"}
    trained = service.post("/api/training/regular", config)
    assert trained.status_code == 200, trained.text
    job = service.jobs.get(trained.json()["task_id"])
    assert job.recipe["dataset"].endswith(f"{dataset}/data/data.yaml")
    assert service.get(f"/api/datasets/{dataset}")["revision"] == 1
    refused = service.call(service.app, "DELETE", f"/api/datasets/{dataset}")
    assert refused.status_code == 409


def test_classes_of_pictures_come_back_too(service: Service, tmp_path: Path) -> None:
    dataset = upload(service, tmp_path, "classify")
    names = export(service, dataset, format="yolo").namelist()
    assert sum(name.startswith("train/circle/") for name in names) == 2
    assert service.call(
        service.app, "GET", f"/api/datasets/{dataset}/export", params={"format": "coco"}
    ).json()["code"] == "VALIDATION_ERROR"  # fmt: skip
    archive = export(service, dataset, format="labelme")
    name = next(n for n in archive.namelist() if b'"circle": true' in archive.read(n))
    document = json.loads(archive.read(name)) | {"flags": {"square": True}}
    answer = service.post(f"/api/datasets/{dataset}/annotations", document)
    assert answer.status_code == 201, answer.text
    changed = service.get(f"/api/datasets/{dataset}/revisions/1/diff")
    assert changed["compared"][0]["relabelled_pairs"] == [
        {"from": "circle", "to": "square", "count": 1}
    ]
    new = service.gateway.datasets.open(dataset)
    assert [len(new.splits[split]) for split in ("train", "val")] == [6, 3]


def test_pictures_are_known_by_content_and_new_ones_join(
    service: Service, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    dataset = upload(service, tmp_path)
    row = next(iter(service.gateway.datasets.open(dataset).scan().images.values()))
    shape = {"label": "circle", "shape_type": "rectangle", "points": [[1, 1], [30, 30]]}
    known = {"imageWidth": 64, "imageHeight": 64, "imagePath": f"{row.digest}.jpg"}
    answer = service.post(
        f"/api/datasets/{dataset}/annotations", known | {"shapes": [shape]}
    )  # fmt: skip
    assert answer.json()["received"] == 1, answer.text

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("new.jpg", picture())
        size = {"imageWidth": 320, "imageHeight": 240, "imagePath": "new.jpg"}
        tram = shape | {"label": "tram"}
        archive.writestr("new.json", json.dumps(size | {"shapes": [tram]}))
        lost = size | {"imagePath": "lost.jpg", "shapes": [shape]}
        archive.writestr("lost.json", json.dumps(lost))
    files = {"file": ("more.zip", buffer.getvalue())}
    answer = service.call(service.app, "POST", f"/api/datasets/{dataset}/annotations", files=files)
    found = answer.json()
    assert (found["received"], found["new_pictures"], found["pictures"]) == (1, 1, 10)
    assert (found["unmatched"], found["new_classes"]) == (["lost.jpg"], ["tram"])
    assert service.gateway.datasets.open(dataset).names == (*SHAPES, "tram")
    back = service.get(f"/api/datasets/{dataset}/revisions/2/diff", params={"against": 1})
    assert back["compared"][0]["added"] == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[1, 2]", "not a label_studio, yolo"),
        (b"{nope", "not valid JSON"),
        (b'{"labels": {"nowhere.jpg": ""}}', "No annotation matches an image"),
        (b'{"labels": {"images/train/0000.jpg": "9 0.5 0.5 0.1 0.1"}}', "class id 9"),
        (b'{"labels": {"images/train/0000.jpg": "0 0.5 0.5 0 0.1"}}', "1 boxes without an area"),
        (b'{"labels": {"images/train/0000.jpg": "0 nan 0.5 0.1 0.1"}}', "Line 1"),
        (b'{"shapes": [], "imageWidth": 5, "imageHeight": 5, "imagePath": "images/train/0000.jpg"}',
         "image has 64"),
        (b'[{"data": {}}]', "contains no address of an image"),
        (b'{"labels": 5}', "'labels' must be an object"),
        (b'{"labels": {"images/train/0000.7.png": ""}}', "No annotation matches an image"),
        (b'{"labels": {"images/train/0000.jpg": "0 .5 .5 .1 .1", "images/train/0000": ""}}',
         "annotate the same image of the dataset differently"),
        (b'{"labels": {"images/train/0000.jpg": "0 1.1 1.1 1.2 1.1 1.2 1.2"}}', "no area"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_changes_nothing(
    service: Service, tmp_path: Path, body: bytes, says: str
) -> None:
    dataset = upload(service, tmp_path)
    path = f"/api/datasets/{dataset}/annotations"
    headers = {"Content-Type": "application/json"}
    answer = service.call(service.app, "POST", path, content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["message"]
    assert [row["revision"] for row in service.get(f"/api/datasets/{dataset}/revisions")[
        "revisions"]] == [0]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/datasets/nobody/export", 404),
        ("/api/datasets/nobody/revisions", 404),
        ("/api/datasets/{}/export?revision=7", 404),
        ("/api/datasets/{}/export?format=tfrecord", 400),
        ("/api/datasets/{}/revisions/1/diff", 404),
        ("/api/datasets/{}/pictures/..%2f..%2fdataset.json", 404),
        ("/api/annotation/queue?dataset=nobody", 404),
        ("/api/annotation/queue?limit=0", 400),
        ("/api/annotation/kept/nothing", 404),
    ],
)
def test_what_is_not_there(service: Service, tmp_path: Path, path: str, status: int) -> None:
    dataset = upload(service, tmp_path)
    answer = service.call(service.app, "GET", path.format(dataset))
    assert (answer.status_code, set(answer.json())) == (
        status, {"error", "code", "message", "detail", "request_id"},
    )  # fmt: skip


def prelabelled(service: Service) -> tuple[str, list[str]]:
    """A data set as a batch annotation leaves it: three pictures, ever less sure."""
    store = service.gateway.annotated
    options = {"bands": {"accept": 0.8, "review": 0.3}, "names": ["a", "b"], "keypoint_names": []}
    dataset = store.ensure("batch:made", "made", options | {"format": "labelme"}, "batch")
    contents = []
    for index, score in enumerate((0.9, 0.6, 0.4)):
        pixels = rng(index).integers(0, 256, (32, 32, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        content, suffix = store.entries.keep(dataset.id, buffer.getvalue())
        contents.append(content)
        thing = {"label": "a", "box": (2.0, 2.0, 20.0, 20.0), "parts": (), "keypoints": ()}
        found = {"image": "x", "width": 32, "height": 32}
        entry = image_entry(
            "model",
            content,
            suffix,
            Annotations.from_json(found | {"objects": [thing | {"score": score, "id": ""}]}),
            rank=PRELABEL_RANK,
            document={"by": "weak:1", "name": f"{index}.png", "split": "", "doubt": 1 - score,
                      "review": 1, "reason": "One.", "look": pack(descriptor_of(pixels))},
        )  # fmt: skip
        store.entries.add_prelabels(dataset.id, [entry])
    build(store, dataset, task="detect", names=["a", "b"], keep=True)
    return dataset.id, contents


def test_the_queue_shrinks_as_people_annotate_and_the_model_is_judged(service: Service) -> None:
    dataset, contents = prelabelled(service)
    found = service.get("/api/annotation/queue", params={"dataset": dataset})
    assert (found["waiting"], found["annotated"]) == (3, 0)
    assert [entry["content"] for entry in found["queue"]] == contents[::-1]
    seen = service.call(service.app, "GET", found["queue"][0]["url"])
    assert (seen.status_code, seen.headers["content-type"]) == (200, "image/png")
    assert service.get(f"/api/datasets/{dataset}")["to_review"] == 2

    # the least sure one was a b, another one is right and something was missed in it
    right = "0 0.34375 0.34375 0.5625 0.5625\n"
    labels = {"2.png": f"1{right[1:]}", "1.png": f"{right}1 0.8 0.8 0.2 0.2\n"}
    answer = service.post(
        f"/api/datasets/{dataset}/annotations", {"labels": labels, "names": ["a", "b"]}
    )
    assert answer.status_code == 201, answer.text
    assert (answer.json()["revision"], answer.json()["to_review"]) == (2, 0)
    found = service.get("/api/annotation/queue", params={"dataset": dataset})
    assert (found["waiting"], found["annotated"]) == (1, 2)
    assert [entry["content"] for entry in found["queue"]] == contents[:1]

    (by_model,) = service.get(f"/api/datasets/{dataset}/revisions/2/diff")["compared"]
    assert by_model["before"] == "weak:1"
    counts = {kind: by_model[kind] for kind in ("accepted", "relabelled", "added", "removed")}
    assert counts == {"accepted": 1, "relabelled": 1, "added": 1, "removed": 0}
    assert (by_model["precision"], by_model["recall"]) == (0.5, 0.3333)
    assert by_model["bands"][1] == {"band": "review", "shown": 2, "right": 1, "precision": 0.5}
    assert service.get(f"/api/datasets/{dataset}/revisions/1/diff")["compared"] == []

    old = export(service, dataset, revision=1)  # in the form that it was annotated for
    documents = [json.loads(old.read(n)) for n in old.namelist() if n.endswith(".json")]
    scores = {one["imagePath"]: one["shapes"][0]["score"] for one in documents}
    assert scores == {"0.png": 0.9, "1.png": 0.6, "2.png": 0.4}
    bare = export(service, dataset, format="coco", images=False)
    assert all(name.startswith("annotations/") for name in bare.namelist())


def test_corrections_that_come_together_all_arrive(service: Service, tmp_path: Path) -> None:
    dataset = upload(service, tmp_path)

    def send(index: int) -> httpx.Response:
        labels = {f"images/train/{index:04}.jpg": f"{index % 3} 0.5 0.5 0.25 0.25\n"}
        return service.post(f"/api/datasets/{dataset}/annotations", {"labels": labels})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    assert {answer.status_code for answer in answers} == {201}, [a.text for a in answers]
    assert sorted(answer.json()["revision"] for answer in answers) == [1, 2, 3, 4, 5, 6]
    newest = service.gateway.datasets.open(dataset)
    texts = [path.read_text() for path in newest.labels.values()]
    for index in range(3):
        assert texts.count(f"{index} 0.5 0.5 0.25 0.25\n") == 2
    assert service.call(service.app, "DELETE", f"/api/datasets/{dataset}").status_code == 204
    assert service.gateway.annotated.find(f"upload:{dataset}") is None


def test_only_admins_change_and_see_traffic(service: Service, tmp_path: Path) -> None:
    from api.app import create_app, with_middleware

    dataset = upload(service, tmp_path)
    settings = service.gateway.settings.model_copy(
        update={"token": _secret("use"), "admin_token": _secret("admin")}
    )
    app = with_middleware(create_app(service.gateway), settings)

    def status(method: str, path: str, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        answer: httpx.Response = service.call(app, method, path, headers=headers, json={})
        return answer.status_code

    for method, path in (
        ("POST", f"/api/datasets/{dataset}/annotations"),
        ("POST", "/api/auto_annotate/batch"),
        ("GET", "/api/annotation/kept/x"),
    ):
        assert status(method, path, "use") == 403
        assert status(method, path, "admin") in (400, 404)
    assert status("GET", "/api/annotation/queue", "use") == 200
    assert status("GET", f"/api/datasets/{dataset}/export", "use") == 200


def _secret(text: str) -> Any:
    from pydantic import SecretStr

    return SecretStr(text)
