"""Corrections over HTTP that are withdrawn, and what came back as it was."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from annotation.revision_records import read_records
from dataset.revisions import image_names, revision_folder
from synthetic.shapes import SHAPES
from tests.api.routes.test_revisions import prelabelled, upload
from tests.support.training_app import Service


def test_what_cannot_become_a_revision_is_withdrawn(
    service: Service,
    tmp_path: Path,
    picture: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset = upload(service, tmp_path)
    path = f"/api/datasets/{dataset}/annotations"
    first = {"labels": {"images/train/0000.jpg": "0 0.5 0.5 0.25 0.25\n"}}
    assert service.post(path, first).status_code == 201

    def pictures() -> dict[str, Any]:
        return {
            p.content: (p.by, p.annotations)
            for p in service.gateway.annotated.entries.records(dataset)
        }

    before = pictures()
    kept = sorted(service.gateway.annotated.folder(dataset).rglob("pictures/*"))
    revised = image_names(revision_folder(service.gateway.annotated.folder(dataset), 1))
    known = {row.file.name: row.name for row in read_records(kept[0].parents[1], 1)}
    assert revised == known
    assert "images/train/0000.jpg" in revised.values()

    def busy(*_: Any, **__: Any) -> None:
        raise Timeout("a.lock")

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("new.jpg", picture())
        archive.writestr("labels/new.txt", "1 0.5 0.5 0.5 0.5")
        archive.writestr("labels/train/0000.txt", "2 0.5 0.5 0.5 0.5")
        archive.writestr("labels/train/0001.txt", "2 0.5 0.5 0.5 0.5")
        archive.writestr("classes.txt", "\n".join(SHAPES))
    files = {"file": ("more.zip", buffer.getvalue())}
    with monkeypatch.context() as patched:
        patched.setattr("annotation.corrections.revising.build", busy)
        answer = service.call(service.app, "POST", path, files=files)
        assert (answer.status_code, answer.json()["code"]) == (503, "BACKEND_UNAVAILABLE")
    assert pictures() == before
    assert sorted(service.gateway.annotated.folder(dataset).rglob("pictures/*")) == kept
    answer = service.call(service.app, "POST", path, files=files)
    assert (answer.json()["received"], answer.json()["new_pictures"]) == (3, 1), answer.text


def test_what_comes_back_as_it_was_need_not_count_as_looked_at(service: Service) -> None:
    dataset, _ = prelabelled(service)
    same, other = "0 0.34375 0.34375 0.5625 0.5625\n", "1 0.34375 0.34375 0.5625 0.5625\n"
    labels = {"0.png": same, "1.png": same, "2.png": other}
    path = f"/api/datasets/{dataset}/annotations"
    sent = {"labels": labels, "names": ["a", "b"]}
    answer = service.call(service.app, "POST", f"{path}?only=changed", json=sent).json()
    assert (answer["received"], answer["unchanged"], answer["to_review"]) == (1, 2, 1)
    assert answer["corrections"]["weak:1"]["pictures"] == 1
    again = service.call(service.app, "POST", f"{path}?only=changed", json=sent)
    assert "annotations of all 3 images are unchanged" in again.json()["message"]
    answer = service.post(path, sent).json()
    assert (answer["received"], answer["unchanged"], answer["to_review"]) == (3, 3, 0)


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json"])
def test_a_zip_that_leads_out_is_refused(service: Service, tmp_path: Path, name: str) -> None:
    dataset = upload(service, tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "{}")
    for path in (f"/api/datasets/{dataset}/annotations", "/api/auto_annotate/batch"):
        files = {"file": ("a.zip", buffer.getvalue())}
        data = {"tool": "object_detection"}
        answer = service.call(service.app, "POST", path, files=files, data=data)
        assert answer.status_code in (400, 404), answer.text  # no model either
    uploads = service.gateway.settings.home / "uploads"
    assert not [f for f in uploads.iterdir() if f.name.startswith(("pictures-", "dataset-"))]
