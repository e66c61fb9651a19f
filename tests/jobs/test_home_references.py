"""Recipes name files in the home in a way that a machine with another home reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from database import Database
from errors import ValidationFailed
from jobs.home_references import referring, resolved
from jobs.job import Kind
from jobs.store import JobStore
from settings import Settings
from tests.support.two_machines import machine_settings


def test_paths_in_the_home_are_references_at_any_depth(tmp_path: Path) -> None:
    home = tmp_path / "a"
    recipe = {
        "dataset": f"{home}/datasets/x/data.yaml",
        "old": [{"path": f"{home}/datasets/y"}, f"{home}x/else", 3, None],
        "name": "$VISIONLOOP",
    }
    stored = referring(recipe, home)
    assert str(home) + "/" not in str(stored)
    assert stored["old"][1:] == [f"{home}x/else", 3, None]
    assert resolved(stored, home) == recipe
    other = resolved(stored, tmp_path / "b")
    assert other["dataset"] == f"{tmp_path}/b/datasets/x/data.yaml"


def test_each_machine_reads_its_own_paths(tmp_path: Path) -> None:
    stores = [
        JobStore(Database(machine_settings(tmp_path, name, "s3://bucket/none")))
        for name in ("a", "b")
    ]
    homes = [store.database.settings.home for store in stores]
    try:
        recipe = {"dataset": f"{homes[0]}/datasets/x"}
        made = stores[0].create("training", config={}, recipe=recipe)
        assert made.recipe == recipe
        for store, home in zip(stores, homes, strict=True):
            assert store.get(made.id).recipe == {"dataset": f"{home}/datasets/x"}
            assert store.list()[0].recipe == {"dataset": f"{home}/datasets/x"}
    finally:
        for store in stores:
            store.database.close()


def test_without_a_store_a_recipe_is_as_it_was_given(tmp_path: Path) -> None:
    store = JobStore(Database(Settings(home=tmp_path)))
    try:
        recipe = {"dataset": f"{tmp_path}/datasets/x"}
        assert store.stored(recipe) == recipe
        made = store.create("training", config={}, recipe=recipe)
        assert store.get(made.id).recipe == recipe
    finally:
        store.database.close()


@pytest.fixture
def clustered(tmp_path: Path) -> Iterator[JobStore]:
    """The jobs of a server with a cluster, and with data in folders of its own."""
    (tmp_path / "data").mkdir()
    settings = Settings(home=tmp_path / "home", data_roots=[tmp_path / "data"]).model_copy(
        update={"cluster_url": "http://127.0.0.1:1"}
    )
    store = JobStore(Database(settings))
    yield store
    store.database.close()


@pytest.mark.parametrize("kind", ["training", "evaluation", "annotation"])
def test_a_cluster_is_not_given_paths_that_only_this_server_has(
    clustered: JobStore, tmp_path: Path, kind: Kind
) -> None:
    recipe = {"replay": [{"path": f"{tmp_path}/data/street/data.yaml"}]}
    with pytest.raises(ValidationFailed, match=r"^'street/data.yaml' .* /api/datasets"):
        clustered.create(kind, config={}, recipe=recipe)
    assert clustered.list() == []


@pytest.mark.parametrize("place", ["weights", "home/pretrained"])
def test_a_cluster_is_not_given_start_weights_that_only_this_server_has(
    clustered: JobStore, tmp_path: Path, place: str
) -> None:
    weights = {"kind": "file", "value": f"{tmp_path}/{place}/yolov8n.pt", "task": "detect"}
    for recipe in ({"base": weights}, {"options": [{"teacher": weights}]}):
        with pytest.raises(ValidationFailed, match=r"^The weights 'yolov8n.pt' .* /models/import"):
            clustered.create("training", config={}, recipe=recipe)
    assert clustered.list() == []
    for kind, value in (("model", "yolov8n:1"), ("download", "yolov8n.pt"), ("job", "a" * 32)):
        clustered.create("training", config={}, recipe={"base": {"kind": kind, "value": value}})


def test_what_a_cluster_can_read_or_does_not_run_is_queued(
    clustered: JobStore, tmp_path: Path
) -> None:
    home = clustered.database.settings.home
    uploaded = {"dataset": f"{home.resolve()}/datasets/x/data.yaml", "name": "/datas"}
    clustered.create("training", config={}, recipe=uploaded)
    clustered.create("import", config={}, recipe={"source": f"{tmp_path}/data/x.zip"})
    assert len(clustered.list()) == 2
