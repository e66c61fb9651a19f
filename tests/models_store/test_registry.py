"""Versions, promotion and the active pointer, as several processes see them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from database import Database
from errors import Conflict, InvalidModelFile, ModelNotFound, ValidationFailed
from models_store.live_models import MISS_SECONDS
from models_store.names import check_name, suggest_name
from models_store.registry import Registry
from models_store.store import ModelStore, locate, new_version
from settings import Settings
from tests.support.patience import wait_until

Publish = Callable[..., str]


class CountingDatabase(Database):
    """Counts its reads."""

    reads = 0

    @contextmanager
    def read(self, patience: float | None = None) -> Iterator[Session]:
        self.reads += 1
        with super().read(patience) as session:
            yield session


def test_a_published_version_is_listed_located_and_described(
    registry: Registry, model_folder: Path
) -> None:
    model = registry.publish(model_folder, "signs", {"kind": "train", "job_id": "7"}, {"f1": 0.5})
    assert registry.list() == [model]
    assert registry.get(model.id) == registry.get("signs") == model
    assert locate(model.id) == model.path
    json = model.to_json()
    assert json["id"] == model.id == f"signs:{model.version}"
    assert json["type"] == "detection"
    assert json["classes"] == ["round", "square", "star"]
    assert json["metrics"] == {"f1": 0.5}
    assert json["source"] == {"kind": "train", "job_id": "7", "parent": None}
    assert json["size_bytes"] == sum(f.stat().st_size for f in model_folder.iterdir())
    assert not json["active"]
    assert not json["promoted"]


def test_a_name_means_the_newest_version_until_one_is_promoted(
    registry: Registry, publish: Publish
) -> None:
    first, second, third = publish(), publish(), publish()
    assert [model.id for model in registry.list()] == [third, second, first]
    assert registry.get("signs").id == third
    assert registry.promote(second).promoted
    assert registry.get("signs").id == second
    assert registry.promote("signs").id == third


def test_an_active_name_follows_promotions_and_an_active_version_stays(
    registry: Registry, publish: Publish
) -> None:
    first, second = publish(promote=True), publish()
    assert registry.activate("signs").id == first
    registry.promote(second)
    assert registry.active().id == registry.resolve(None).id == registry.resolve("").id == second
    registry.activate(first)
    registry.promote(first)
    registry.promote(second)
    assert registry.active().id == first
    assert registry.active_pointer() == first
    assert [model.active for model in registry.list()] == [False, True]


def test_the_active_version_cannot_be_deleted(registry: Registry, publish: Publish) -> None:
    first, second = publish(promote=True), publish()
    registry.activate("signs")
    with pytest.raises(Conflict, match=f"{first} is the active model"):
        registry.delete(first)
    registry.promote(second)
    registry.delete(first)
    with pytest.raises(
        ModelNotFound, match=f"Give a version of signs, .*: {second.partition(':')[2]}"
    ):
        registry.get(first)
    with pytest.raises(Conflict):
        registry.delete(second)
    with pytest.raises(ModelNotFound):
        locate(first)


def test_deleting_the_promoted_version_of_another_name_ends_its_promotion(
    registry: Registry, publish: Publish
) -> None:
    old, new = publish(), publish()
    registry.promote(old)
    registry.delete(old)
    assert registry.get("signs").id == new
    assert not registry.get("signs").promoted
    assert registry.delete("signs").id == new
    assert not (registry.store.models / "signs").exists()


def test_a_bare_name_with_several_versions_is_not_deleted(
    registry: Registry, publish: Publish
) -> None:
    ids = {publish(), publish()}
    with pytest.raises(ValidationFailed, match="several versions"):
        registry.delete("signs")
    assert {model.id for model in registry.list()} == ids


def test_another_process_sees_a_change_within_a_second(
    registry: Registry, publish: Publish
) -> None:
    server = Registry(Database(Settings()))
    assert server.list() == []
    published = publish()
    registry.activate("signs")
    wait_until(server.list)
    assert server.active().id == published
    server.database.close()


def test_a_version_just_published_by_another_process_is_found_at_once(
    registry: Registry, publish: Publish
) -> None:
    server = Registry(Database(Settings()), refresh_seconds=3600.0, miss_seconds=0.0)
    assert server.list() == []
    published = publish()
    assert server.get(published).id == published
    server.database.close()


def test_asking_for_what_is_not_there_does_not_flood_the_database(
    registry: Registry, publish: Publish
) -> None:
    publish()
    database = CountingDatabase(Settings())
    server = Registry(database)

    def has_looked() -> bool:
        with pytest.raises(ModelNotFound):
            server.get("cats")
        return bool(database.reads)

    start = time.monotonic()
    wait_until(has_looked)
    for _ in range(200):
        has_looked()
    database.close()
    assert database.reads <= 2 + (time.monotonic() - start) / MISS_SECONDS


def test_reads_between_two_looks_at_the_database_cost_no_query(
    registry: Registry, publish: Publish
) -> None:
    publish()
    database = CountingDatabase(Settings())
    if database.is_shared:  # it follows changes by a thread, whose first look is one to the others
        wait_until(lambda: database.change() >> 32)
    server = Registry(database, refresh_seconds=3600.0)
    assert server.get("signs").name == "signs"
    known = database.reads
    assert server.get("signs").name == "signs"
    database.close()
    assert database.reads == known > 0


def test_an_unknown_model_is_answered_with_the_known_ones(
    registry: Registry, publish: Publish
) -> None:
    with pytest.raises(ModelNotFound, match="The registry is empty"):
        registry.get("cats")
    with pytest.raises(ModelNotFound, match="No model is active"):
        registry.active()
    publish()
    for wrong in ("cats", "signs:0", "../signs", "signs:..", "signs:", ":", " ", "ß", "a" * 99):
        with pytest.raises(ModelNotFound):
            registry.get(wrong)
        with pytest.raises(ModelNotFound):
            locate(wrong)
    with pytest.raises(ModelNotFound, match=r"No model 'cats'\. Known: signs\."):
        registry.activate("cats")
    assert registry.get(" Signs ").name == "signs"


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a/b", "..", "a..b", "-a", "a_", "ä", "a" * 64, "active", "a:b", "a\n"]
)
def test_unusable_names_are_refused(registry: Registry, model_folder: Path, name: str) -> None:
    with pytest.raises(ValidationFailed, match="name"):
        registry.publish(model_folder, name, {})
    assert registry.list() == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My Model (v2)", "my-model-v2"),
        ("best", "best"),
        ("..", "model"),
        ("active", "active-model"),
        ("Größe", "grosse"),
        ("猫", "model-a810bf"),
        ("狗", "model-cecd67"),  # another model
        ("𝐀 №5", "a-no5"),  # capitals that only the plain form has
        ("Model™", "modeltm"),
        ("Ampel 灯 v2", "ampel-v2-9f9516"),
        ("猫\ud800", "model-572b1e"),
        ("猫" + "x" * 80, "x" * 56 + "-59339d"),
        ("x" * 80, "x" * 63),
    ],
)
def test_a_name_is_suggested_for_any_file(registry: Registry, text: str, name: str) -> None:
    assert suggest_name(text) == name
    check_name(suggest_name(text))


def test_names_that_differ_by_a_sign_of_their_script_are_told_apart() -> None:
    for one, other in (("カード", "ガード"), ("ขาว", "ข้าว"), ("мои", "мой")):
        assert suggest_name(one) != suggest_name(other)
    assert suggest_name("カ\u3099") == suggest_name("ガ")


def _is_later_than(milliseconds: int) -> bool:
    return time.time_ns() // 1_000_000 > milliseconds


def test_version_ids_are_short_unique_and_sort_by_time() -> None:
    ids = []
    for _ in range(50):
        ids.append(new_version())
        wait_until(partial(_is_later_than, time.time_ns() // 1_000_000), pause=0.0)
    assert ids == sorted(set(ids))
    assert all(len(version) <= 13 and version.isalnum() for version in ids)


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors", "model.onnx"])
def test_an_incomplete_folder_is_not_published(
    registry: Registry, other_folder: Path, missing: str
) -> None:
    (other_folder / missing).unlink()
    with pytest.raises(InvalidModelFile, match=missing):
        registry.publish(other_folder, "signs", {})
    assert registry.list() == []
    assert list(registry.store.models.glob("*/*/")) == []


def test_a_link_in_the_folder_is_not_followed(registry: Registry, other_folder: Path) -> None:
    (other_folder / "secret").symlink_to("/etc/passwd")
    with pytest.raises(InvalidModelFile, match="not a regular file"):
        registry.publish(other_folder, "signs", {})
    assert registry.sweep() == []


def test_the_same_model_is_published_once_when_asked(
    registry: Registry, model_folder: Path, other_folder: Path
) -> None:
    first = registry.publish(model_folder, "signs", {}, unless_present=True)
    again = registry.publish(model_folder, "signs", {}, unless_present=True)
    other = registry.publish(other_folder, "signs", {}, unless_present=True)
    assert first.id == again.id != other.id


def test_a_promotion_asked_for_reaches_the_version_that_is_there(
    registry: Registry, model_folder: Path, other_folder: Path
) -> None:
    first = registry.publish(model_folder, "signs", {})
    registry.publish(other_folder, "signs", {}, promote=True)
    again = registry.publish(model_folder, "signs", {}, promote=True, unless_present=True)
    assert (again.id, again.promoted) == (first.id, True)
    assert registry.get("signs").id == first.id


@pytest.mark.sqlite
def test_rows_and_promotions_come_back_after_the_database_is_lost(
    registry: Registry, publish: Publish, model_folder: Path
) -> None:
    old, new = publish(promote=True), publish()
    scored = registry.set_metrics(new, {"mAP50": 0.75, "none": None})
    before = registry.list()
    registry.database.close()
    for file in registry.settings.home.glob("visionloop.db*"):
        file.unlink()
    fresh = Registry(Database(Settings()))
    assert fresh.list() == []
    assert sorted(fresh.reindex()) == sorted(
        [f"Added {old}.", f"Added {new}.", f"Promoted {old}, as recorded in the model store."]
    )
    assert fresh.list() == before
    assert fresh.get(new).metrics == scored.metrics == {"mAP50": 0.75, "none": None}
    assert fresh.reindex() == []
    fresh.database.close()


def test_rows_without_a_folder_go_at_reindex(registry: Registry, publish: Publish) -> None:
    kept, lost = publish(), publish(promote=True)
    shutil.rmtree(registry.get(lost).path)
    done = registry.reindex()
    assert any(lost in sentence for sentence in done)
    assert registry.get("signs").id == kept


def test_half_written_folders_are_reported_and_harm_nobody(
    registry: Registry, publish: Publish
) -> None:
    good = publish()
    store = registry.store.models
    (store / "half" / "1").mkdir(parents=True)
    (store / "torn" / "1").mkdir(parents=True)
    (store / "torn" / "1" / "model.yaml").write_text("name: [")
    (store / "theirs" / "1").mkdir(parents=True)
    (store / "theirs" / "1" / "model.yaml").write_text("name: theirs\nmetadata: {}\n")
    found, problems = ModelStore().scan()
    assert [f"{model.name}:{model.version}" for model in found] == [good]
    assert len(problems) == 2
    assert "half:1 is incomplete" in problems[0]
    assert "torn:1 is unusable" in problems[1]
    assert [line for line in registry.reindex() if not line.startswith("Skipped")] == []
    assert (store / "theirs" / "1").is_dir()


def test_bentoml_reads_the_store(
    registry: Registry, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bentoml
    from bentoml._internal.models.model import ModelStore as BentoStore

    first, second = publish(), publish()
    store = BentoStore(registry.store.models)
    assert {str(model.tag) for model in bentoml.models.list(_model_store=store)} == {first, second}
    latest = bentoml.models.get("signs", _model_store=store)
    assert str(latest.tag) == second
    assert Path(latest.path) == registry.get(second).path
    registry.delete(second)
    assert str(bentoml.models.get("signs:latest", _model_store=store).tag) == first


def test_the_newest_version_is_the_last_one_though_the_clock_was_set_back(
    registry: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.publish(model_folder, "shapes", {"kind": "import"})
    yesterday = datetime.now(UTC) - timedelta(days=1)
    monkeypatch.setattr(
        "models_store.publication.now", lambda: yesterday.isoformat(timespec="milliseconds")
    )
    second = registry.publish(model_folder, "shapes", {"kind": "train"})
    third = registry.publish(model_folder, "shapes", {"kind": "train"})
    assert [model.id for model in registry.list()] == [third.id, second.id, first.id]
    assert registry.get("shapes") == third


def test_a_version_may_be_shortened_to_a_unique_beginning(
    registry: Registry, publish: Publish
) -> None:
    first, second = publish(), publish()
    shared = next(n for n, both in enumerate(zip(first, second, strict=True)) if len({*both}) > 1)
    assert registry.get(second[: shared + 1]).id == second
    assert registry.activate(first[: shared + 1]).id == first
    assert registry.active_pointer() == first  # the whole id is stored
    assert registry.promote(second[: shared + 1]).id == second
    start = first[: len("signs:") + 4]
    with pytest.raises(ValidationFailed, match="2 models begin with 'signs:") as refusal:
        registry.get(start)
    assert first in str(refusal.value)
    assert second in str(refusal.value)
    with pytest.raises(ModelNotFound, match="of at least 4 characters: ") as missing:
        registry.get(start[:-1])  # three characters
    assert first.partition(":")[2] in str(missing.value)
    assert registry.delete(second[: shared + 1]).id == second
    assert registry.get(start).id == first
