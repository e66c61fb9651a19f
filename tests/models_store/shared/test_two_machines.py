"""Models on two machines that share a database and an object store, and no folder."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from errors import BackendUnavailable, ModelDamaged, ModelNotFound, StoreUnavailable
from models_store.publication import Publisher
from models_store.registry import Registry
from models_store.shared import model_trees, repair
from models_store.shared.model_trees import ModelTrees
from models_store.tables import PublishedModel
from storage.object_trees import ObjectTrees
from tests.models_store.shared.conftest import Machine
from tests.support.patience import wait_until

SOURCE = {"kind": "import"}


def files(folder: Path) -> dict[str, bytes]:
    """The files of a version, without marks that are this machine's."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_a_version_of_one_machine_serves_on_the_other(
    one: Registry, two: Registry, model_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", SOURCE, {"mAP50": 0.5}, promote=True)
    found = two.get("signs")
    assert (found.id, found.promoted, found.metrics) == (made.id, True, {"mAP50": 0.5})
    assert not found.is_here
    assert not found.path.exists()
    assert files(found.files()) == files(made.path)
    assert found.is_here
    assert two.trees.locate(made.id) == found.path
    assert (found.path.parent / "latest").read_text() == made.version
    assert two.store.scan()[0][0].metadata == one.store.scan()[0][0].metadata
    assert list(two.store.downloads.iterdir()) == []
    assert two.sweep() == one.sweep() == []


def test_a_version_that_is_deleted_on_one_machine_is_gone_on_the_other(
    one: Registry, two: Registry, model_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", SOURCE, promote=True)
    copy = two.get(made.id).files()
    exported = two.settings.paths.exports / made.name / made.version
    exported.mkdir(parents=True)
    one.delete(made.id)
    with pytest.raises(ModelNotFound):
        two.get(made.id)
    wait_until(lambda: not copy.exists() and not exported.exists())
    with pytest.raises(ModelNotFound):
        two.trees.locate(made.id)
    assert one.trees.versions() == one.trees.cards() == set()
    assert one.trees.read_promoted("signs") is None
    assert one.trees.pending() == []


def test_a_version_is_downloaded_once_however_many_ask(
    one: Registry, two: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    downloads, get, go = [], ObjectTrees.get, threading.Event()

    def slow(self: ObjectTrees, *given: object) -> None:
        downloads.append(given)
        go.wait()
        get(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectTrees, "get", slow)
    threads = [threading.Thread(target=two.get(made.id).files) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: downloads)
    go.set()
    for thread in threads:
        thread.join()
    assert len(downloads) == 1
    assert two.get(made.id).is_here


def test_a_download_that_fails_is_tried_again(
    one: Registry, two: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)

    def unreachable(self: ObjectTrees, *given: object) -> None:
        raise StoreUnavailable("The object store cannot be reached.", 10)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectTrees, "get", unreachable)
        with pytest.raises(BackendUnavailable, match="cannot be reached") as caught:
            two.trees.locate(made.id)
        assert caught.value.retry_after == 10
    assert not two.get(made.id).path.exists()
    assert files(two.trees.locate(made.id)) == files(made.path)


def test_another_download_that_does_not_end(
    one: Registry, two: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    monkeypatch.setattr(model_trees, "DOWNLOAD_TIMEOUT", 0)
    two.store.downloads.mkdir(parents=True)
    with (
        model_trees.FileLock(two.store.downloads / f"{made.name}-{made.version}.lock"),
        pytest.raises(BackendUnavailable, match="still being downloaded"),
    ):
        two.trees.locate(made.id)


def test_other_files_than_the_card_says_are_damage(
    one: Registry, two: Registry, model_folder: Path, other_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    one.trees.upload(other_folder, made.name, made.version)
    with pytest.raises(ModelDamaged, match="not those of its card"):
        two.trees.locate(made.id)
    assert not two.get(made.id).path.exists()


def test_a_copy_that_lacks_a_file_is_replaced(
    one: Registry, two: Registry, model_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    copy = two.get(made.id).files()
    (copy / "model.onnx").unlink()
    assert files(two.get(made.id).files()) == files(made.path)


def test_metrics_are_on_the_card_too(one: Registry, two: Registry, model_folder: Path) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    two.set_metrics(made.id, {"mAP50": 0.7})
    assert not two.get(made.id).is_here
    assert one.get(made.id).metrics == {"mAP50": 0.7}
    assert two.trees.card(made.name, made.version).metadata["metrics"] == {"mAP50": 0.7}


def test_a_lost_database_is_rebuilt_from_the_store_alone(
    machine: Machine, model_folder: Path, other_folder: Path, tmp_path: Path
) -> None:
    one = machine("one")
    first = one.publish(model_folder, "signs", SOURCE, {"mAP50": 0.5})
    second = one.publish(other_folder, "signs", SOURCE, promote=True)
    one.promote(first.id)
    before = [model.to_json() for model in one.list()]
    one.database.close()
    (tmp_path / "shared.db").unlink()
    fresh = machine("three")
    assert sorted(fresh.reindex()) == sorted(
        [f"Added {first.id}.", f"Added {second.id}.",
         f"Promoted {first.id}, as recorded in the model store."]
    )  # fmt: skip
    assert [model.to_json() for model in fresh.list()] == before
    assert files(fresh.get("signs").files()) == files(first.path)
    assert fresh.reindex() == []


def test_rows_without_files_anywhere_are_told_and_removed_by_reindex(
    one: Registry, two: Registry, model_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    one.trees._trees.delete(f"models/{made.name}/{made.version}")
    shutil.rmtree(made.path)
    assert any("neither in the object store nor here" in line for line in two.sweep())
    with pytest.raises(ModelNotFound):
        two.get(made.id).files()
    assert f"Removed the row of {made.id}: its folder is missing." in two.reindex()


def test_a_home_from_before_the_store_is_uploaded_at_the_start(
    machine: Machine, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("models_store.registry.open_trees", lambda settings: _no_store())
        made = machine("one").publish(model_folder, "signs", SOURCE, promote=True)
    one, two = machine("one"), machine("two")
    assert one.sweep() == [
        f"Stored {made.id} in the object store.",
        f"Noted in the model store that {made.id} is promoted.",
    ]
    assert files(two.get("signs").files()) == files(made.path)
    assert one.sweep() == two.sweep() == []


def _no_store() -> object:
    from storage.trees import FolderTrees

    return FolderTrees()


class Killed(BaseException):
    """What a test raises in place of a SIGKILL: nothing of ours is done after it."""


@contextmanager
def killed_at(step: int, names: Collection[str], patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A block that is killed when it comes to one of these calls of the store after `step` others.

    Yields the names of the calls that it has made.
    """
    calls: list[str] = []

    def dying(name: str) -> None:
        real = getattr(ObjectTrees, name)

        def call(self: ObjectTrees, *given: object) -> object:
            if len(calls) >= step:
                raise Killed
            calls.append(name)
            return real(self, *given)

        patch.setattr(ObjectTrees, name, call)

    for name in set(names):
        dying(name)
    with pytest.raises(Killed):
        yield calls


STEPS = ("put", "put_bytes", "put_bytes", "delete_bytes", "put_bytes")


@pytest.mark.parametrize("step", range(5))
def test_a_machine_that_dies_while_it_publishes(
    one: Registry,
    two: Registry,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    monkeypatch.setattr(repair, "UNSETTLED", 0)
    monkeypatch.setattr(model_trees, "ABANDONED", 0)
    with monkeypatch.context() as patch, killed_at(step, STEPS, patch) as calls:
        patch.setattr(Publisher, "_row_exists", lambda *_: True)  # nothing is undone
        one.publish(model_folder, "signs", SOURCE, promote=True)
    assert calls == list(STEPS[:step])
    visible = [model.id for model in two.list()]
    assert len(visible) == (step >= 3)
    two.sweep()
    assert [model.id for model in two.list()] == visible
    if visible:
        assert two.get("signs").files().is_dir()
        assert two.trees.read_promoted("signs") == two.get("signs").version
    else:
        assert two.trees.versions() == two.trees.cards() == set()
    assert two.trees.pending() == []
    assert two.sweep() == []


@pytest.mark.parametrize("step", range(4))
def test_a_machine_that_dies_while_it_deletes(
    one: Registry, two: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    steps = ("put_bytes", "delete", "delete_bytes")
    with monkeypatch.context() as patch, killed_at(step, steps, patch) as calls:
        one.delete(made.id)
    assert calls == list(steps[:step])
    visible = [model.id for model in two.list()]
    assert visible == ([made.id] if step == 0 else [])
    monkeypatch.setattr(repair, "UNSETTLED", 0)
    two.sweep()
    assert [model.id for model in two.list()] == visible
    assert bool(two.trees.versions()) == bool(visible)
    assert two.trees.pending() == []


def test_a_publication_of_another_machine_that_goes_on_is_left_alone(
    one: Registry, two: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_card, swept = ModelTrees.write_card, []

    def sweeping(self: ModelTrees, *given: object) -> None:
        swept.append(two.sweep())
        write_card(self, *given)  # type: ignore[arg-type]
        swept.append(two.sweep())

    with monkeypatch.context() as patch:
        patch.setattr(ModelTrees, "write_card", sweeping)
        made = one.publish(model_folder, "signs", SOURCE)
    assert swept == [[], []]
    assert files(two.get(made.id).files()) == files(made.path)


def test_a_failed_publication_leaves_nothing(
    one: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: ModelTrees, *given: object) -> None:
        raise StoreUnavailable("The object store cannot be reached.", 10)

    with monkeypatch.context() as patch:
        patch.setattr(ModelTrees, "write_card", failing)
        with pytest.raises(StoreUnavailable):
            one.publish(model_folder, "signs", SOURCE)
    assert one.trees.versions() == one.trees.cards() == set()
    assert one.trees.pending() == one.list() == []
    assert list((one.store.models).glob("*/*/")) == []


def test_the_same_content_is_uploaded_once(
    one: Registry, two: Registry, model_folder: Path
) -> None:
    made = one.publish(model_folder, "signs", SOURCE)
    assert two.publish(model_folder, "signs", SOURCE, unless_present=True).id == made.id
    assert two.trees.versions() == {(made.name, made.version)}


def test_what_lies_in_the_store(one: Registry, model_folder: Path) -> None:
    made = one.publish(model_folder, "signs", SOURCE, promote=True)
    trees = one.trees._trees
    assert list(trees.list("models")) == [f"models/signs/{made.version}"]
    assert trees.get_bytes("promoted/signs").decode() == made.version
    card = json.loads(trees.get_bytes(f"models/signs/{made.version}"))
    with one.database.read() as session:
        row = session.get(PublishedModel, (made.name, made.version))
    assert row is not None
    assert (card["size_bytes"], card["description"]) == (row.size_bytes, row.description)
    assert card["metadata"]["content"] == row.content
