"""Recipes name files in the home in a way that a machine with another home reads."""

from __future__ import annotations

from pathlib import Path

from database import Database
from jobs.home_references import referring, resolved
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
