"""Datasets on two machines with one object store: each shows what the other has made."""

from __future__ import annotations

import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from annotation.uploads import reception
from annotation.uploads.reception import receive
from annotation.uploads.upload import UploadOptions, store_upload
from tests.support.correction_app import (
    BEFORE,
    FRAMES,
    correct,
    drawn,
    labels,
    packed,
    street,
    upload,
)
from tests.support.patience import PATIENCE
from tests.support.training_app import Service
from tests.support.two_machines import Machines

BOX = "0.5 0.5 0.25 0.25"


def relabelled(name: str, cls: int) -> dict[str, str | bytes]:
    """A correction of one image of the dataset `street(FRAMES)`."""
    return {
        "data.yaml": "names: [car, person, dog]\ntrain: images\nval: images\n",
        f"labels/{name}.txt": f"{cls} {BOX}\n",
    }


def has_nothing(machine: Service, dataset: str) -> bool:
    return not (machine.gateway.datasets.folder / dataset).exists()


def exported_names(machine: Service, dataset: str) -> set[str]:
    answer = machine.call(machine.app, "GET", f"/api/datasets/{dataset}/export?format=yolo")
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        return {name.rpartition("/")[2] for name in found.namelist()}


def test_lists_need_no_files(machines: Machines) -> None:
    a, b = machines
    dataset = upload(a, street(FRAMES))
    assert b.get("/api/datasets") == a.get("/api/datasets")
    assert b.get(f"/api/datasets/{dataset}") == a.get(f"/api/datasets/{dataset}")
    rows = b.get(f"/api/datasets/{dataset}/revisions")["revisions"]
    assert [row["revision"] for row in rows] == [0]
    assert has_nothing(b, dataset)


def test_the_other_machine_has_the_images_once_it_is_asked_for_them(machines: Machines) -> None:
    a, b = machines
    dataset = upload(a, street(FRAMES))
    page = b.get(f"/api/datasets/{dataset}/images")
    assert page == a.get(f"/api/datasets/{dataset}/images")
    content = page["images"][0]["content"]
    path = f"/api/datasets/{dataset}/images/{content}"
    images = [machine.call(machine.app, "GET", path) for machine in machines]
    assert [one.status_code for one in images] == [200, 200], images[0].text
    assert images[0].content == images[1].content
    assert exported_names(b, dataset) == exported_names(a, dataset)
    assert labels(b, dataset) == BEFORE


def test_what_one_machine_corrects_the_other_corrects_further(machines: Machines) -> None:
    a, b = machines
    dataset = upload(a, street(FRAMES))
    first = correct(b, dataset, relabelled("frame_1", 2))
    assert first.status_code in (200, 201), first.text
    assert labels(a, dataset) == BEFORE | {"frame_1.png": ["dog"]}
    second = correct(a, dataset, relabelled("frame_2", 0))
    assert second.status_code in (200, 201), second.text
    assert (first.json()["revision"], second.json()["revision"]) == (1, 2)
    for machine in machines:
        assert labels(machine, dataset) == {
            "frame_1.png": ["dog"],
            "frame_2.png": ["car"],
            "frame_3.png": ["dog"],
        }
        rows = machine.get(f"/api/datasets/{dataset}/revisions")["revisions"]
        assert [row["revision"] for row in rows] == [2, 1, 0]
        assert machine.get(f"/api/datasets/{dataset}")["revision"] == 2


def test_images_are_stored_once_for_all_revisions(machines: Machines) -> None:
    a, b = machines
    dataset = upload(a, street(FRAMES))
    assert correct(a, dataset, relabelled("frame_1", 2)).status_code in (200, 201)
    assert labels(b, dataset)
    folder = b.gateway.datasets.folder / dataset
    image = next((folder / "revisions").glob("*/images/*/*.png"))
    assert image.stat().st_nlink >= 3  # in the upload, among the images, in the revision


def test_corrections_on_both_machines_at_once_are_all_kept(machines: Machines) -> None:
    a, b = machines
    frames = {f"train/f{number}.png": 0 for number in range(8)} | {"val/v.png": 0}
    dataset = upload(a, street(frames))

    def send(number: int) -> int:
        machine = machines[number % 2]
        return correct(machine, dataset, relabelled(f"f{number}", 1)).status_code

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(8)))
    assert set(answers) <= {200, 201}
    expected = {f"f{number}.png": ["person"] for number in range(8)} | {"v.png": ["car"]}
    assert labels(a, dataset) == expected
    assert labels(b, dataset) == expected
    assert a.get(f"/api/datasets/{dataset}")["revision"] == 8


def test_images_added_on_both_machines_are_on_both(machines: Machines) -> None:
    dataset = upload(machines[0], street(FRAMES))
    for number, machine in enumerate(machines):
        files = [("file", (f"new_{number}.png", drawn(100 + number)))]
        path = f"/api/datasets/{dataset}/images"
        answer = machine.call(machine.app, "POST", path, files=files)
        assert answer.status_code in (200, 201), answer.text
    for machine in machines:
        found = machine.get(f"/api/datasets/{dataset}/images")["images"]
        assert len(found) == 5
        assert {f"new_{n}.png" for n in (0, 1)} <= {image["name"] for image in found}


def send_with_key(machine: Service, key: str, zipped: bytes, **fields: str) -> httpx.Response:
    files = [("file", ("street.zip", zipped))]
    headers = {"Idempotency-Key": key}
    return machine.call(
        machine.app, "POST", "/api/datasets", files=files, data=fields, headers=headers
    )


def test_an_upload_that_is_sent_again_is_one_dataset_whoever_receives_it(
    machines: Machines,
) -> None:
    zipped = packed(street(FRAMES))
    answers = [send_with_key(machines[n % 2], "one", zipped) for n in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3, answers[0].text
    assert answers[0].json() == answers[1].json() == answers[2].json()
    for machine in machines:
        [found] = machine.get("/api/datasets")["datasets"]
        assert found["id"] == answers[0].json()["id"]
        assert labels(machine, found["id"]) == BEFORE


def test_the_same_upload_at_the_same_time_on_two_machines_is_one_dataset(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped, stored = packed(street(FRAMES)), list[str]()
    both = threading.Barrier(4)

    def counted(*args: Any) -> dict[str, Any]:
        stored.append("")
        return store_upload(*args)

    def send(number: int) -> str:
        gateway = machines[number % 2].gateway
        options = UploadOptions("set", key="one")
        both.wait(PATIENCE)
        card = receive(gateway.datasets, gateway.annotated, io.BytesIO(zipped), options)
        return str(card["id"])

    monkeypatch.setattr(reception, "store_upload", counted)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(send, range(4)))
    assert len(found) == len(stored) == 1
    for machine in machines:
        assert [row["id"] for row in machine.get("/api/datasets")["datasets"]] == list(found)


@pytest.mark.parametrize("background", ["false", "true"])
def test_another_key_name_or_content_is_another_dataset(
    machines: Machines, background: str
) -> None:
    a, b = machines
    zipped = packed(street(FRAMES))
    other = packed(street({"train/a.png": 0, "val/b.png": 1}))
    answers = [
        send_with_key(a, "one", zipped, background=background),
        send_with_key(b, "one", zipped, background=background),
        send_with_key(a, "two", zipped, background=background),
        send_with_key(b, "one", zipped, background=background, name="other"),
        send_with_key(b, "one", other, background=background),
        send_with_key(a, "", zipped, background=background),
        send_with_key(a, "", zipped, background=background),
    ]
    found = "dataset_id" if background == "true" else "id"
    ids = [answer.json()[found] for answer in answers]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 6


def test_a_deleted_dataset_is_gone_on_both_machines(machines: Machines) -> None:
    a, b = machines
    dataset = upload(a, street(FRAMES))
    assert labels(b, dataset) == BEFORE
    assert a.call(a.app, "DELETE", f"/api/datasets/{dataset}").status_code == 204
    assert b.get("/api/datasets")["datasets"] == []
    assert b.call(b.app, "GET", f"/api/datasets/{dataset}").status_code == 404
    b.gateway.datasets.local(dataset)
    assert has_nothing(b, dataset)
    assert has_nothing(a, dataset)
