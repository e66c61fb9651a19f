"""Evaluations on two machines with one database and one object store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from database import Database
from errors import NotFound, StoreRefused
from evaluation.store import PLOTS, PREDICTIONS, REPORT, WORST, EvaluationRow, EvaluationStore
from evaluation.target import EvaluationTarget
from settings import Settings
from storage.trees import FolderTrees


@pytest.fixture
def machines(tmp_path: Path, store_url: str) -> Iterator[tuple[EvaluationStore, EvaluationStore]]:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    stores = tuple(
        EvaluationStore(
            Database(Settings(home=tmp_path / name, database_url=url, store_url=store_url))
        )
        for name in ("one", "two")
    )
    yield stores[0], stores[1]
    for store in stores:
        store.database.close()


def evaluate(store: EvaluationStore) -> EvaluationRow:
    output = store.database.settings.home / "output"
    for folder in (PLOTS, WORST):
        (output / folder).mkdir(parents=True)
    (output / REPORT).write_text(json.dumps({"figures": {"mAP50": 0.5}, "letterbox": "rect"}))
    (output / PREDICTIONS).write_bytes(b"arrays")
    (output / PLOTS / "confusion.png").write_bytes(b"plot")
    (output / WORST / "0.jpg").write_bytes(b"image")
    target = EvaluationTarget(
        model_folder=output,
        dataset=SimpleNamespace(fingerprint="f", root=output),  # type: ignore[arg-type]
        model_id="signs:1",
        dataset_name="drawn",
    )
    return store.add(target, output, {"mAP50": 0.5}, "rect", None)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_evaluation_of_one_machine_is_read_on_the_other(
    machines: tuple[EvaluationStore, EvaluationStore],
) -> None:
    one, two = machines
    made = evaluate(one)
    (found,) = two.history("signs:1")
    assert not two.folder(found).exists()
    assert two.is_complete(found)
    assert two.latest("signs:1", "f", "val", "rect") is not None
    assert two.report(found)["figures"] == {"mAP50": 0.5}
    assert content(two.files(found)) == content(one.folder(made))
    assert len(content(two.folder(found))) == 4


def test_each_machine_reads_a_datasets_path_in_its_own_home(
    machines: tuple[EvaluationStore, EvaluationStore],
) -> None:
    made = evaluate(machines[0])
    homes = [store.database.settings.home.resolve() for store in machines]
    assert made.dataset_path == str(homes[0] / "output")
    for store, home in zip(machines, homes, strict=True):
        (found,) = store.history("signs:1")
        assert found.dataset_path == str(home / "output")


def test_what_is_added_to_an_evaluation_is_shared(
    machines: tuple[EvaluationStore, EvaluationStore],
) -> None:
    one, two = machines
    made = evaluate(one)
    (one.folder(made) / "forgetting.json").write_text("{}")
    one.share(made)
    (found,) = two.history("signs:1")
    assert (two.files(found) / "forgetting.json").read_text() == "{}"


def test_an_evaluation_that_is_deleted_on_one_machine_is_gone(
    machines: tuple[EvaluationStore, EvaluationStore],
) -> None:
    one, two = machines
    made = evaluate(one)
    assert two.delete_for("signs:1") == 1
    assert one.history("signs:1") == []
    shutil.rmtree(one.folder(made))
    assert not one.is_complete(made)
    with pytest.raises(NotFound):
        one.files(made)


class Refusing(FolderTrees):
    """A store that refuses to delete some trees."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.deleted: list[str] = []

    def delete(self, key: str) -> None:
        if key.rpartition("/")[2] in self.refused:
            raise StoreRefused("No rights.")
        self.deleted.append(key.rpartition("/")[2])


def test_an_object_that_cannot_be_deleted_does_not_keep_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = EvaluationStore(Database(Settings(home=tmp_path / "home")))
    made = []
    for _ in range(3):
        made.append(evaluate(store))
        shutil.rmtree(store.database.settings.home / "output", ignore_errors=True)
    newest, *older = [row.id for row in reversed(made)]
    store._trees = trees = Refusing(newest)
    assert store.keep_only([]) == 3
    assert sorted(trees.deleted) == sorted(older)
    assert store.history("signs:1") == []
    assert "1 of 3 objects could not be deleted: No rights." in caplog.text
    assert "visionloop prune" in caplog.text
    store.database.close()
