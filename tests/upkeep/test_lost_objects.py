"""Objects that a deletion left, or a process that was killed: found a day later, and deleted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from database import Database, now
from engines.store import ExportRecord
from evaluation.store import EvaluationRow
from models_store.tables import PublishedModel
from settings import Settings
from storage.object_trees import ObjectTrees
from storage.place import open_trees
from storage.trees import TreeStore
from tests.support.patience import wait_until
from tests.support.two_machines import machine_settings
from upkeep import lost_objects as module
from upkeep.lost_objects import lost_objects
from upkeep.prune import Limits, Stores, delete, plan

NOW = Limits(older_than=timedelta(0))
LOST = {
    "evaluations/0e", "exports/gone/1/x", "exports/signs/1/broken", "kept/2",
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path, store_url: str) -> Iterator[Database]:
    found = Database(machine_settings(tmp_path, "a", store_url))
    yield found
    found.close()


@pytest.fixture
def trees(database: Database, tmp_path: Path) -> TreeStore:
    """A store with an object of each kind that is in use, and with those of LOST."""
    found = open_trees(database.settings)
    row = EvaluationRow(
        id="1e", name="signs", version="1", dataset="d", dataset_path="d", fingerprint="f",
        split="val", letterbox=None, figures={},
    )  # fmt: skip
    model = PublishedModel(
        name="signs", version="1", created_at="t", size_bytes=1, description="{}", source={},
        metrics=None, content="c",
    )  # fmt: skip
    with database.write() as session:
        session.add_all([row, model])
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "file").write_text("x")
    used = ("evaluations/1e", "exports/signs/1/whole")
    for key in (*used, *(key for key in LOST if not key.startswith("kept/"))):
        found.put(folder, key)
    for key in ("exports/signs/1/whole", "exports/gone/1/x", "kept/1", "kept-cards/1", "kept/2"):
        found.put_bytes(key, b"{}")
    return found


def left(trees: TreeStore) -> set[str]:
    tops = ("evaluations", "exports", "kept", "kept-cards")
    return {key for top in tops for key in (*trees.list(top), *trees.list_bytes(top))}


def test_what_nothing_refers_to_is_pruned_and_the_rest_stays(
    database: Database, trees: TreeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left(trees)
    assert plan(Stores.of(database), ["uploads"], NOW).items == []  # younger than a day
    monkeypatch.setattr(module, "MIN_AGE", 0)
    planned = plan(Stores.of(database), ["uploads"], NOW)
    assert {item.id for item in planned.items} == LOST
    assert left(trees) == before
    delete(planned)
    assert left(trees) == before - LOST
    assert plan(Stores.of(database), ["uploads"], NOW).items == []


def test_an_export_that_is_made_again_is_not_lost_any_more(
    database: Database, trees: TreeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MIN_AGE", 1)
    key = "exports/signs/1/broken"
    found = wait_until(lambda: [one for one in lost_objects(database, 1) if one.key == key])
    monkeypatch.setattr(ObjectTrees, "list", lambda *_: [])  # as it is now younger
    found[0].delete()
    monkeypatch.undo()
    assert trees.exists(key)


def test_old_exports_of_all_machines_are_pruned(
    database: Database, trees: TreeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = SimpleNamespace(id="signs:1", name="signs", version="1", content="c")
    stores = Stores.of(database)
    monkeypatch.setattr(stores.registry, "list", lambda: [model])
    for name, time in (("old", "2026-01-01T00:00:00+00:00"), ("new", now())):
        record = ExportRecord(
            id=name, model_id="signs:1", content="c", format="onnx", precision="fp32", imgsz=640,
            dynamic=False, max_batch=1, file="file", size_bytes=1, sha256="", created_at=time,
        )  # fmt: skip
        trees.put(tmp_path / "tree", f"exports/signs/1/{name}")
        trees.put_bytes(f"exports/signs/1/{name}", record.model_dump_json().encode())
    planned = plan(stores, ["exports"], Limits(older_than=timedelta(minutes=10)))
    assert [(item.id, item.bytes) for item in planned.items] == [("signs:1/old", 1)]
    delete(planned)
    assert not trees.exists("exports/signs/1/old")
    assert trees.exists("exports/signs/1/new")


def test_without_a_store_nothing_is_lost(tmp_path: Path) -> None:
    database = Database(Settings(home=tmp_path))
    try:
        assert list(lost_objects(database, 0)) == []
    finally:
        database.close()
