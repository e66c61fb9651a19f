"""Copies of shared datasets: complete or not there, renewed, and nothing lost when things fail."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from database import Database
from dataset.shared import parts
from dataset.shared.datasets import SharedDatasets, shared_datasets
from dataset.shared.tables import SharedDataset
from dataset.store import DatasetStore
from errors import BackendUnavailable, DatasetNotFound, StoreDamaged, StoreUnavailable
from files import PARTIAL
from settings import Settings
from storage.place import open_trees
from tests.support.two_machines import machine_settings


class Machine:
    """The datasets as a machine has them."""

    def __init__(self, folder: Path, name: str, store_url: str) -> None:
        self.settings = machine_settings(folder, name, store_url)
        self.database = Database(self.settings)
        self.trees = open_trees(self.settings)
        self.shared = SharedDatasets(self.database, self.trees)
        self.store = DatasetStore(self.settings, self.shared)

    def add(self, name: str = "set", files: int = 3) -> str:
        with self.store.staged() as staged:
            (staged / "data" / "images").mkdir(parents=True)
            for number in range(files):
                (staged / "data" / "images" / f"{number}.png").write_bytes(bytes([number]) * 99)
            card = self.store.keep(staged, name, {"description": "data", "task": "detect"})
        return str(card["id"])

    def revise(self, dataset: str, text: str) -> None:
        """Add a revision, with a label and a link to an image."""
        with self.shared.changing(dataset) as folder:
            number = len(list(folder.glob("revisions/*"))) + 1
            revision = folder / "revisions" / f"{number:06}"
            revision.mkdir(parents=True)
            (revision / "label.txt").write_text(text)
            os.link(folder / "data" / "images" / "0.png", revision / "0.png")
            card = json.loads((folder / "dataset.json").read_bytes()) | {"revision": number}
            parts.write_json(folder / "dataset.json", card)
            self.shared.publish(dataset, card)

    def content(self, dataset: str) -> dict[str, bytes]:
        folder = self.shared.local(dataset)
        return {name: (folder / name).read_bytes() for name in parts.files_in(folder)}

    def objects(self) -> list[str]:
        return list(self.trees.list("datasets"))


Machines = tuple[Machine, Machine]


@pytest.fixture
def two(tmp_path: Path, store_url: str) -> Iterator[Machines]:
    found = Machine(tmp_path, "a", store_url), Machine(tmp_path, "b", store_url)
    yield found
    for one in found:
        one.database.close()


def test_a_copy_is_equal_and_renewed(two: Machines) -> None:
    a, b = two
    dataset = a.add()
    assert b.content(dataset) == a.content(dataset)
    b.revise(dataset, "first")
    a.revise(dataset, "second")
    assert a.content(dataset) == b.content(dataset)
    folder = b.shared.local(dataset)
    assert (folder / "revisions/000002/label.txt").read_text() == "second"
    assert json.loads((folder / "dataset.json").read_bytes())["revision"] == 2
    assert (folder / "revisions/000002/0.png").stat().st_nlink == 3


def test_only_what_is_new_is_uploaded_and_downloaded(
    two: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    dataset = a.add()
    b.shared.local(dataset)
    before = set(a.objects())
    a.revise(dataset, "first")
    assert before < set(a.objects())
    asked: list[str] = []
    get = b.trees.get

    def count(key: str, folder: Path, digest: str | None = None) -> None:
        asked.append(key)
        get(key, folder, digest)

    monkeypatch.setattr(b.trees, "get", count)
    b.shared.local(dataset)
    assert set(asked) == set(a.objects()) - before


def test_many_who_wait_share_one_download(two: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = two
    dataset = a.add()
    asked: list[str] = []
    get = b.trees.get

    def count(key: str, folder: Path, digest: str | None = None) -> None:
        asked.append(key)
        get(key, folder, digest)

    monkeypatch.setattr(b.trees, "get", count)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: b.content(dataset), range(6)))
    assert all(one == found[0] for one in found)
    assert len(asked) == 1


def test_a_revision_that_one_machine_deleted_is_deleted_on_the_other(two: Machines) -> None:
    a, b = two
    dataset = a.add()
    a.revise(dataset, "first")
    a.revise(dataset, "second")
    b.shared.local(dataset)
    objects = len(a.objects())
    with a.shared.changing(dataset) as folder:
        for file in (folder / "revisions/000001").iterdir():
            file.unlink()
        (folder / "revisions/000001").rmdir()
        a.shared.publish(dataset, {"id": dataset, "created_at": "now"})
    assert len(a.objects()) == objects - 1
    assert b.content(dataset) == a.content(dataset)
    assert not (b.shared.local(dataset) / "revisions/000001").exists()


def test_a_store_that_fails_leaves_no_dataset_and_no_files(
    two: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two

    def fail(*_: Any) -> str:
        raise StoreUnavailable("no", 1.0)

    monkeypatch.setattr(a.trees, "put", fail)
    with pytest.raises(StoreUnavailable):
        a.add()
    assert a.store.list() == b.store.list() == []
    left = [path for path in a.store.folder.rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix != ".lock"]


def test_a_row_that_cannot_be_written_leaves_no_objects(
    two: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = two

    def fail(*_: Any) -> None:
        raise OSError("disk")

    monkeypatch.setattr(a.shared, "_write_row", fail)
    with pytest.raises(OSError, match="disk"):
        a.add()
    assert a.objects() == []
    assert a.store.list() == []


def test_a_failed_change_leaves_the_former_one_on_both_machines(
    two: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    dataset = a.add()
    before = b.content(dataset)
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise OSError("disk")

        patch.setattr(b.shared, "_write_row", fail)
        with pytest.raises(OSError, match="disk"):
            b.revise(dataset, "lost")
    assert a.content(dataset) == before
    b.revise(dataset, "kept")
    assert a.content(dataset)["revisions/000002/label.txt"] == b"kept"


def test_a_machine_killed_between_upload_and_row_leaves_what_is_found_as_lost(
    two: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two
    kept = a.add("kept")

    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:  # nothing of ours runs after a kill -9
        patch.setattr(a.shared, "_write_row", die)
        patch.setattr(a.shared, "_delete_objects", lambda keys: None)
        with pytest.raises(Killed):
            a.add("lost")
    assert len(a.objects()) == 2
    assert [card["id"] for card in b.store.list()] == [kept]
    assert b.shared.lost([]) == []  # it may go on
    [lost] = b.shared.lost([], min_age=-1.0)
    b.shared.delete_lost(lost)
    assert len(a.objects()) == 1
    assert b.content(kept) == a.content(kept)


def test_a_copy_of_a_dataset_that_got_no_row_is_deleted(two: Machines) -> None:
    a, _ = two
    dataset = a.add()
    with a.database.write() as session:
        row = session.get(SharedDataset, dataset)
        session.delete(row)
    a.shared.local(dataset)
    assert not (a.store.folder / dataset).exists()


def test_images_are_there_before_their_part(two: Machines) -> None:
    a, b = two
    name = "0" * 64 + ".png"
    a.shared.keep_image("batch-1", name, b"pixels")
    file = b.store.folder / "batch-1" / "pictures" / name
    missing = file.with_name("1" * 64 + ".png")
    b.shared.have_images("batch-1", [file, missing])
    assert file.read_bytes() == b"pixels"
    assert not missing.exists()
    with b.shared.changing("batch-1"):
        b.shared.publish("batch-1", {"id": "batch-1", "created_at": "now"})
    assert b.trees.list_bytes("datasets") == []
    assert a.content("batch-1") == {f"pictures/{name}": b"pixels"}
    (a.store.folder / "batch-1" / "pictures" / name).unlink()
    a.shared.have_images("batch-1", [a.store.folder / "batch-1" / "pictures" / name])
    assert a.content("batch-1") == {f"pictures/{name}": b"pixels"}


def test_images_of_deleted_datasets_are_lost_and_no_others(two: Machines) -> None:
    a, _ = two
    a.shared.keep_image("gone", "0.png", b"x")
    a.shared.keep_image("annotated", "0.png", b"x")
    assert a.shared.lost(["annotated"]) == []  # its annotation may be written this moment
    [lost] = a.shared.lost(["annotated"], min_age=-60.0)
    a.shared.delete_lost(lost)
    assert a.trees.list_bytes("datasets") == ["datasets/annotated/0.png"]


def test_deleting_leaves_no_objects_and_no_copies(two: Machines) -> None:
    a, b = two
    dataset = a.add()
    a.revise(dataset, "first")
    b.shared.local(dataset)
    a.store.delete(dataset)
    assert a.objects() == []
    with pytest.raises(DatasetNotFound):
        b.store.get(dataset)
    with pytest.raises(DatasetNotFound):
        b.store.delete(dataset)
    b.shared.local(dataset)
    assert not (b.store.folder / dataset).exists()


def test_another_content_than_the_row_says_is_refused(two: Machines) -> None:
    a, b = two
    dataset = a.add()
    with a.database.write() as session:
        row = session.get(SharedDataset, dataset)
        assert row is not None
        session.execute(update(SharedDataset).values(parts=[[row.parts[0][0], "0" * 64, ""]]))
    with pytest.raises(StoreDamaged):
        b.shared.local(dataset)
    assert not list(b.settings.home.rglob("*.png"))
    assert not list(b.settings.home.rglob(f"{PARTIAL}*"))


def test_a_link_out_of_the_dataset_is_refused(two: Machines, tmp_path: Path) -> None:
    a, b = two
    dataset = a.add()
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / parts.LINKS).write_text(json.dumps({"stolen": "../../shared.db"}))
    digest = a.trees.put(evil, f"datasets/{dataset}/evil")
    with a.database.write() as session:
        row = session.get(SharedDataset, dataset)
        assert row is not None
        row.parts = [*row.parts, [f"datasets/{dataset}/evil", digest, ""]]
        row.number += 1
    with pytest.raises(StoreDamaged):
        b.shared.local(dataset)
    assert not (b.store.folder / dataset / "stolen").exists()


def test_a_change_of_an_outdated_copy_is_refused(two: Machines) -> None:
    a, b = two
    dataset = a.add()
    b.shared.local(dataset)
    a.revise(dataset, "first")
    with pytest.raises(BackendUnavailable):
        b.shared.publish(dataset, {"id": dataset, "created_at": "now"})


def test_changes_wait_for_each_other_across_machines(two: Machines) -> None:
    a, b = two
    dataset = a.add()
    inside, order = threading.Event(), []

    def change(machine: Machine, wait: Callable[[], object]) -> None:
        with machine.shared.changing(dataset):
            order.append(machine)
            wait()
            order.append(machine)

    with ThreadPoolExecutor(2) as pool:

        def hold() -> None:
            inside.set()
            b_began.wait(0.3)  # b cannot get in meanwhile, however long this is

        b_began = threading.Event()
        first = pool.submit(change, a, hold)
        assert inside.wait(60)
        second = pool.submit(change, b, b_began.set)
        first.result()
        second.result()
    assert order == [a, a, b, b]


def test_a_path_of_a_shared_dataset_is_downloaded_when_it_is_resolved(two: Machines) -> None:
    a, b = two
    dataset = a.add()
    path = b.store.resolve(str(b.store.folder / dataset / "data"))
    assert len(list((path / "images").iterdir())) == 3
    assert b.store.resolve(dataset) == path


def test_without_a_store_nothing_is_shared(tmp_path: Path) -> None:
    with closing(Database(Settings(home=tmp_path))) as database:
        assert shared_datasets(database) is None
