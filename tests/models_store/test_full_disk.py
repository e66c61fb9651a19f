"""Publishing a model on a disk that fills up at any point of the write."""

from __future__ import annotations

from pathlib import Path

import pytest

from database import Database
from disk_space import is_disk_full
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings
from tests.support.full_disk import fill, small_disk

STEP = 32 * 1024  # bytes more that are free in each try


@pytest.mark.sqlite
def test_a_model_is_published_as_a_whole_or_not_at_all(tmp_path: Path, model_folder: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        database = Database(Settings(home=disk / "home", disk_reserve=0))
        registry = Registry(database, ModelStore(disk / "bento"))
        first = registry.publish(model_folder, "shapes", {"kind": "import"}, promote=True)

        def stored() -> list[str]:
            found = (path.relative_to(disk / "bento") for path in (disk / "bento").rglob("*"))
            return sorted(str(path) for path in found if "staging" not in str(path))

        before, failures = stored(), 0
        while True:
            filler = fill(disk, leave=failures * STEP)
            try:
                second = registry.publish(model_folder, "shapes", {"kind": "train"}, promote=True)
                break
            except Exception as error:
                assert is_disk_full(error), error  # noqa: PT017 (there is a second outcome)
                failures += 1
            finally:
                filler.unlink()
            assert stored() == before
            assert not list((disk / "bento" / "visionloop-staging").glob("*"))
            assert [model.id for model in registry.list()] == [first.id]
            assert registry.promoted("shapes") == registry.get(first.id)
        assert failures > 2
        assert registry.promoted("shapes") == registry.get(second.id)
        assert registry.sweep() == []
        database.close()


@pytest.mark.parametrize(
    ("name", "repaired"),
    [
        ("latest", ["Finished publishing {}.", "Noted in the model store that {} is promoted."]),
        ("promoted", ["Noted in the model store that {} is promoted."]),
    ],
)
def test_a_disk_that_is_full_after_the_commit_does_not_undo_it(
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    repaired: list[str],
) -> None:
    """A pointer beside the database that cannot be written is written at the next start."""
    from models_store import store as module

    database = Database(Settings(home=tmp_path / "home"))
    registry = Registry(database, ModelStore(tmp_path / "bento"))
    write = module._write

    def full(path: Path, text: str) -> None:
        if path.name == name:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(module, "_write", full)
    model = registry.publish(model_folder, "shapes", {"kind": "train"}, promote=True)
    assert registry.promoted("shapes") == registry.get(model.id)
    monkeypatch.undo()
    assert registry.sweep() == [sentence.format(model.id) for sentence in repaired]
    assert (tmp_path / "bento" / "models" / "shapes" / "latest").read_text() == model.version
    assert registry.store.read_promoted("shapes") == model.version
    database.close()
