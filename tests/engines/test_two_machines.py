"""Exports on two machines with one object store."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.store import ExportRecord, ExportStore
from errors import NotFound
from models_store.shared.model_trees import ModelTrees
from models_store.store import ModelStore
from settings import Settings
from storage.place import open_trees

MODEL: Any = SimpleNamespace(id="signs:1", name="signs", version="1", content="c")
Machines = tuple[ExportStore, ExportStore]


@pytest.fixture
def machines(tmp_path: Path, store_url: str) -> Machines:
    one, two = (
        ExportStore(Settings(home=tmp_path / name, store_url=store_url)) for name in ("one", "two")
    )
    return one, two


def export(store: ExportStore, data: bytes) -> ExportRecord:
    record = ExportRecord(
        id="onnx-fp32-640", model_id=MODEL.id, content="c", format="onnx", precision="fp32",
        imgsz=640, dynamic=False, max_batch=1, file="signs.onnx", size_bytes=len(data),
        sha256=data.hex(), created_at="2026-11-30",
    )  # fmt: skip
    folder = store.folder(MODEL) / record.id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / record.file).write_bytes(data)
    record.save(folder)
    store.share(MODEL, record)
    return record


def test_an_export_of_one_machine_is_downloaded_from_the_other(machines: Machines) -> None:
    one, two = machines
    assert two.list(MODEL) == []
    made = export(one, b"first")
    assert two.list(MODEL) == [made]
    assert not two.folder(MODEL).exists()
    assert two.path(MODEL, made).read_bytes() == b"first"


def test_an_export_that_was_made_again_replaces_the_copy(machines: Machines) -> None:
    one, two = machines
    two.path(MODEL, export(one, b"first"))
    export(one, b"second one")
    (found,) = two.list(MODEL)
    assert two.path(MODEL, found).read_bytes() == b"second one"


def test_an_export_that_is_deleted_on_one_machine_is_gone(machines: Machines) -> None:
    one, two = machines
    made = export(one, b"first")
    two.delete(MODEL, made.id)
    assert one.list(MODEL) == []
    with pytest.raises(NotFound):
        one.delete(MODEL, made.id)


def test_an_export_of_the_command_line_is_shared(
    machines: Machines, tmp_path: Path, store_url: str
) -> None:
    """It is made by a child process, whose answer lacks the content of the version."""
    one, two = machines
    made = export(one, b"first")
    one.delete(MODEL, made.id)
    folder = one.folder(MODEL) / made.id
    folder.mkdir(parents=True)
    (folder / made.file).write_bytes(b"first")
    made.save(folder)
    trees = open_trees(Settings(home=tmp_path / "one", store_url=store_url))
    written = json.dumps(made.to_json() | {"content": MODEL.content}).encode()
    ModelTrees(trees, ModelStore(tmp_path / "bento")).share_export(folder, "signs", "1", written)
    assert two.list(MODEL) == one.list(MODEL) == [made]
    assert two.path(MODEL, made).read_bytes() == b"first"
