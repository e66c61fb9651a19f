"""`/api/datasets/{id}/images` and `/health`: uploads of every task, revisions, bytes of images."""

from __future__ import annotations

import io
import sqlite3
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.console import image_files
from api.thread_pool import whole_images
from inference.images import DECODING, decode
from models_store.description import Task
from tests.support.correction_app import coco, correct, drawn, street, upload
from tests.support.drafting import ALICE_NAME, IMAGES, accept, commit, look, shape
from tests.support.odd_images import odd_images
from tests.support.shapes import write_shapes
from tests.support.training_app import Service


def listing(service: Service, dataset: str, **query: Any) -> dict[str, Any]:
    return dict(service.get(f"/api/datasets/{dataset}/images", params=query))


def bytes_of(service: Service, path: str, **headers: str) -> Any:
    return service.call(service.app, "GET", path, headers=headers)


def folder_files(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_the_images_of_an_upload_of_every_task(
    service: Service, tmp_path: Path, task: Task
) -> None:
    write_shapes(tmp_path / "set", task, 6, 3, imgsz=48)
    dataset = upload(service, folder_files(tmp_path / "set"))
    card = service.get(f"/api/datasets/{dataset}")
    found = listing(service, dataset)
    assert (found["total"], found["revision"], found["task"], found["next"]) == (9, 0, task, None)
    assert found["facets"]["split"] == {"train": 6, "val": 3}
    objects = sum(split["objects"] for split in card["splits"].values())
    assert sum(row["objects"] for row in found["images"]) == objects
    for row in found["images"]:
        assert (row["width"], row["height"]) == (48, 48)
        assert len(row["boxes"]) == (0 if task == "classify" else row["objects"])
        for _, x1, y1, x2, y2 in row["boxes"]:
            assert 0 <= x1 < x2 <= 1.001
            assert 0 <= y1 < y2 <= 1.001
    label = next(iter(found["images"][0]["classes"]))
    some = listing(service, dataset, **{"class": label})
    assert some["total"] == found["facets"]["class"][label] == len(some["images"])
    sizes = service.get(f"/api/datasets/{dataset}/health")
    balance = {row["name"]: row["objects"] for row in sizes["classes"]}
    for row in card["class_counts"]:
        assert balance[row["name"]] == {split: row[split] for split in card["splits"]}


@pytest.fixture
def faulty(service: Service) -> str:
    """A dataset with a problem of each kind."""
    files: dict[str, Any] = dict(
        street({f"train/{i}.png": i % 3 for i in range(6)} | {"val/a.png": 0, "val/b.png": 1})
    )
    files["images/train/broken.png"] = drawn(50)[:200]
    files["images/train/unlabelled.png"] = drawn(51)
    files["images/val/copy.png"] = files["images/train/0.png"]
    files["labels/val/copy.txt"] = files["labels/train/0.txt"]
    files["labels/train/1.txt"] += "1 0.5 0.5 0 0.2\n0 nonsense\n"
    files["labels/train/2.txt"] = ""
    return upload(service, files)


def test_each_image_names_its_problems(service: Service, faulty: str) -> None:
    found = listing(service, faulty)
    by_name = {row["name"].rpartition("images/")[2]: row for row in found["images"]}
    assert by_name["train/broken.png"]["state"] == "unreadable"
    assert by_name["train/unlabelled.png"]["problems"].keys() == {"missing_label"}
    assert "images/train/0.png" in by_name["val/copy.png"]["problems"]["duplicate_split"]
    assert {"degenerate", "malformed_line"} <= by_name["train/1.png"]["problems"].keys()
    assert "line 2" in by_name["train/1.png"]["problems"]["degenerate"]
    assert by_name["train/2.png"]["state"] == "empty"
    some = listing(service, faulty, problem="corrupt_image")
    assert [row["state"] for row in some["images"]] == ["unreadable"]
    error = bytes_of(service, by_name["train/broken.png"]["thumbnail_url"])
    assert (error.status_code, error.json()["code"]) == (400, "INVALID_IMAGE_FORMAT")


def test_health_names_the_problems_with_images_to_look_at(service: Service, faulty: str) -> None:
    problems = {
        one["kind"]: one for one in service.get(f"/api/datasets/{faulty}/health")["problems"]
    }
    assert problems["corrupt_image"]["shown"][0]["state"] == "unreadable"
    assert problems["degenerate"]["images"] == 1
    assert problems["degenerate"]["shown"][0]["name"].endswith("1.png")
    assert problems["malformed_line"]["message"]


def test_pages_follow_each_other_and_stay_with_their_revision(
    service: Service, frames: str
) -> None:
    first = listing(service, frames, limit=2)
    assert (len(first["images"]), first["next"]) == (2, "0-2")
    assert correct(service, frames, {"a.json": coco({"frame_1.png": ["dog"]})}).status_code == 201
    second = listing(service, frames, limit=2, after=first["next"])
    assert (len(second["images"]), second["revision"], second["next"]) == (1, 0, None)
    assert second["facets"] is None
    newest = listing(service, frames)
    assert newest["revision"] == 1
    by_state = {row["name"].rpartition("/")[2]: row["state"] for row in newest["images"]}
    assert by_state == {
        "frame_1.png": "corrected", "frame_2.png": "labelled", "frame_3.png": "labelled",
    }  # fmt: skip
    assert listing(service, frames, author="person")["total"] == 1
    assert {row["split"] for row in newest["images"]} == {"train", "val"}
    path = f"/api/datasets/{frames}/images"
    for query in (
        {"after": "0-2", "revision": 1},
        {"after": "x"},
        {"split": "tran"},
        {"limit": 0},
        {"state": "labeled"},
    ):
        answer = service.call(service.app, "GET", path, params=query)
        assert answer.status_code == 400, answer.text
    for unknown in (f"{path}?revision=7", "/api/datasets/no-such/images"):
        assert service.call(service.app, "GET", unknown).status_code == 404


def test_new_images_are_unlabelled_in_the_newest_revision(service: Service, frames: str) -> None:
    files = [("file", ("new.png", drawn(70)))]
    service.call(service.app, "POST", f"/api/datasets/{frames}/images", files=files)
    some = listing(service, frames, state="unlabelled")
    assert [(row["name"], row["split"], row["author"]) for row in some["images"]] == [
        ("new.png", "", "")
    ]
    assert bytes_of(service, some["images"][0]["thumbnail_url"]).status_code == 200


def test_an_image_with_a_draft_is_found_by_that(service: Service, frames: str) -> None:
    row = listing(service, frames)["images"][0]
    path = f"/api/datasets/{frames}/images/{row['content']}"
    base = service.get(f"{path}/annotations")["base"]
    sent = {"base": base, "objects": [], "state": "draft"}
    answer = service.call(
        service.app, "PUT", f"{path}/draft", json=sent, headers={"If-None-Match": "*"}
    )
    assert answer.status_code in (200, 201), answer.text
    some = listing(service, frames, state="draft")
    assert [(one["content"], one["draft"]) for one in some["images"]] == [(row["content"], True)]
    assert some["facets"]["state"]["draft"] == 1


def test_an_image_is_answered_by_its_content_and_kept_by_browsers(
    service: Service, frames: str
) -> None:
    row = listing(service, frames)["images"][0]
    whole = bytes_of(service, row["url"])
    assert whole.status_code == 200
    assert sha256(whole.content).hexdigest() == row["content"]
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in whole.headers["cache-control"]
    again = bytes_of(service, row["url"], **{"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    small = bytes_of(service, f"{row['url']}?size=160&decoding={DECODING}")
    assert "immutable" in small.headers["cache-control"]
    assert f"&decoding={DECODING}" in row["thumbnail_url"]
    assert Image.open(io.BytesIO(small.content)).format == "JPEG"
    assert small.headers["etag"] != whole.headers["etag"]
    assert small.content == bytes_of(service, f"{row['url']}?size=160").content
    for path, status in (
        (f"{row['url']}?size=17", 400),
        (f"/api/datasets/{frames}/images/{'0' * 64}", 404),
        (f"/api/datasets/{frames}/images/..%2f..%2fdataset.json", 404),
        (f"/api/datasets/no-such/images/{row['content']}", 404),
    ):
        assert bytes_of(service, path).status_code == status


def test_a_browser_asks_again_for_an_image_whose_url_does_not_name_the_decoding_rules(
    service: Service, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = listing(service, frames)["images"][0]
    picture = f"/api/datasets/{frames}/pictures/{row['content']}?as=browser"
    for url in (f"{row['url']}?size=160", picture):
        seen = bytes_of(service, url)
        assert "no-cache" in seen.headers["cache-control"]
        assert "no-cache" in bytes_of(service, f"{url}&decoding=1").headers["cache-control"]
        kept = bytes_of(service, f"{url}&decoding={DECODING}")
        assert "immutable" in kept.headers["cache-control"]
        assert kept.headers["etag"] == seen.headers["etag"]
        its = {"If-None-Match": seen.headers["etag"]}
        assert (bytes_of(service, url, **its).status_code) == 304
        with monkeypatch.context() as newer:
            newer.setattr(image_files, "DECODING", DECODING + 1)
            assert bytes_of(service, url, **its).status_code == 200
            assert (
                "no-cache"
                in bytes_of(service, f"{url}&decoding={DECODING}").headers["cache-control"]
            )


def test_a_damaged_index_is_written_again_and_goes_with_its_dataset(
    service: Service, frames: str
) -> None:
    first = listing(service, frames)
    folder = service.gateway.settings.paths.image_index / frames
    file = next(folder.glob("*.sqlite"))
    file.write_bytes(b"damaged" * 100)
    assert listing(service, frames) == first
    file.unlink()
    assert listing(service, frames) == first
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE images")
    database.close()
    assert listing(service, frames) == first
    service.call(service.app, "DELETE", f"/api/datasets/{frames}")
    assert not folder.exists()


def test_images_are_listed_by_the_person_who_annotated_them(service: Service, frames: str) -> None:
    accept(service, frames, IMAGES[0], [shape("dog")])
    assert commit(service, frames).status_code == 201
    newest = listing(service, frames)
    assert newest["facets"]["author"] == {ALICE_NAME: 1, "original": 2}
    some = listing(service, frames, author=ALICE_NAME)
    assert [row["content"] for row in some["images"]] == [IMAGES[0]]
    assert look(service, frames, IMAGES[0], revision=1)["by"] == ALICE_NAME


def test_an_image_that_browsers_cannot_show_is_sent_as_png_and_as_the_file_it_is(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = odd_images()
    names = {"train/a.tif": "deep.tif", "train/b.jpeg": "plain.jpg", "val/c.tiff": "pages.tif"}
    files = dict(street(dict.fromkeys(names, 0)))
    files |= {f"images/{name}": odd[source] for name, source in names.items()}
    dataset = upload(service, files)
    for source in names.values():
        data = odd[source]
        path = f"/api/datasets/{dataset}/pictures/{sha256(data).hexdigest()}"
        plain, shown = bytes_of(service, path), bytes_of(service, f"{path}?as=browser")
        assert plain.content == data
        assert "immutable" in plain.headers["cache-control"]
        is_jpeg = source.endswith("jpg")
        assert plain.headers["content-type"] == ("image/jpeg" if is_jpeg else "image/tiff")
        assert shown.headers["content-type"] == ("image/jpeg" if is_jpeg else "image/png")
        assert np.array_equal(decode(shown.content, 10**6), decode(data, 10**6))
        assert bytes_of(service, f"{path}?as=browser").content == shown.content
    assert bytes_of(service, f"{path}?as=tiff").status_code == 400
    monkeypatch.setattr(whole_images, "limit", 0)  # as many wait as may
    assert bytes_of(service, f"{path}?as=browser").status_code == 503
    assert bytes_of(service, path).status_code == 200
