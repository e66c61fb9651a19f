"""One model of a backup comes back, while everything else stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from errors import NotFound
from tests.support.furnished_home import Furnished, furnished, torn
from upkeep.backup import backup
from upkeep.manifest import BackupDamaged
from upkeep.model_restore import restore_model
from upkeep.storage import object_in, opened


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Furnished]:
    made = furnished(tmp_path / "server")
    yield made
    made.database.close()


@pytest.fixture(params=["saved", "saved.zip"])
def saved(home: Furnished, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A backup of two versions of `signs`, the older one promoted, and of `other`."""
    promoted = home.publish(promote=True, note="the good one", class_counts={"sign": 3})
    home.registry.set_metrics(promoted, {"mAP50": 0.5})
    home.publish()
    home.publish("other")
    path = tmp_path / str(request.param)
    backup(home.settings, path, store=home.models)
    return path


def versions(home: Furnished) -> dict[str, str]:
    return {model.id: model.content for model in home.registry.list()}


def test_a_deleted_model_comes_back_with_its_metrics(home: Furnished, saved: Path) -> None:
    good = home.registry.promoted("signs")
    assert good is not None
    newer = next(one for one in home.registry.list() if one.name == "signs" and one != good)
    home.registry.promote(newer.id)
    home.registry.delete(good.id)
    rest = versions(home)
    done = restore_model(home.registry, saved, "Signs")  # the promoted one of then
    assert (done.was, done.new) == (good.id, True)
    made = done.model
    assert (made.name, made.content, made.metrics) == ("signs", good.content, {"mAP50": 0.5})
    assert made.source["origin"]["id"] == good.id
    assert made.source["origin"]["source"]["note"] == "the good one"
    assert made.class_counts == {"sign": 3}, "drift is measured against them"
    assert not made.promoted
    assert versions(home) == rest | {made.id: good.content}
    assert torn(home) == []
    assert not list(home.settings.paths.scratch.iterdir())
    again = restore_model(home.registry, saved, good.id)
    assert (again.model.id, again.new) == (made.id, False)


def test_a_model_that_was_not_promoted_is_the_newest_of_its_name(
    home: Furnished, saved: Path
) -> None:
    (other,) = (one for one in home.registry.list() if one.name == "other")
    done = restore_model(home.registry, saved, "other")
    assert (done.model.id, done.was, done.new) == (other.id, other.id, False)


def test_a_name_without_a_promoted_version_goes_on_to_mean_its_newest(
    home: Furnished, tmp_path: Path
) -> None:
    """Requests for it would get the restored one, unasked."""
    old = home.publish()
    backup(home.settings, tmp_path / "saved", store=home.models)
    home.registry.delete(old)
    current = home.publish()
    restored = restore_model(home.registry, tmp_path / "saved", old).model
    assert home.registry.get("signs").id == current
    (decision,) = home.registry.decisions("signs")
    assert decision.reasons == [
        f"{current} was the version of 'signs' before one was restored from a backup."
    ]
    home.registry.delete(restored.id)
    home.publish("other")
    restore_model(home.registry, tmp_path / "saved", old)
    assert home.registry.promoted("other") is None, "other names stay as they are"


@pytest.mark.parametrize("model_id", ["nothing", "signs:1", "../signs", "signs/promoted", ""])
def test_what_the_backup_lacks_is_refused_with_what_it_has(
    home: Furnished, saved: Path, model_id: str
) -> None:
    before = versions(home)
    with pytest.raises(NotFound, match=r"It has: other:.*, signs:.*, signs:"):
        restore_model(home.registry, saved, model_id)
    assert versions(home) == before


def test_a_damaged_file_of_the_model_is_named_and_nothing_changes(
    home: Furnished, tmp_path: Path
) -> None:
    model, other = home.publish(), home.publish("other")
    backup(home.settings, tmp_path / "saved", store=home.models)
    home.registry.delete(model)
    path = f"models/{model.replace(':', '/')}/model.safetensors"
    (entry,) = (one for one in opened(tmp_path / "saved").manifest().entries if one.path == path)
    assert entry.sha256 is not None
    object_in(tmp_path / "saved", entry.sha256).write_bytes(b"x" * 2000)
    with pytest.raises(BackupDamaged, match=r"model\.safetensors in the backup is damaged"):
        restore_model(home.registry, tmp_path / "saved", model)
    assert list(versions(home)) == [other]
    assert restore_model(home.registry, tmp_path / "saved", "other").model.id == other
