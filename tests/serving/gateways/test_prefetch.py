"""What one machine promotes is on the others before a request asks for it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from errors import StoreUnavailable
from models_store.registry import Registry
from serving.gateways.prefetch import Prefetch
from storage.object_trees import ObjectTrees
from tests.models_store.conftest import model_folder
from tests.models_store.shared.conftest import machine, one, two
from tests.support.patience import until

__all__ = ["machine", "model_folder", "one", "two"]

SOURCE = {"kind": "import"}


def test_what_is_promoted_later_is_downloaded_and_nothing_else(
    one: Registry, two: Registry, model_folder: Path
) -> None:
    before = one.publish(model_folder, "signs", SOURCE, promote=True)
    prefetch = Prefetch(two)
    prefetch.look()
    after = one.publish(model_folder, "signs", SOURCE)
    prefetch.look()
    assert not two.get(before.id).is_here
    assert not two.get(after.id).is_here
    one.promote(after.id)
    prefetch.look()
    assert not two.get(before.id).is_here
    assert two.get(after.id).is_here
    one.rollback("signs")
    prefetch.look()
    assert two.get(before.id).is_here


def test_a_store_that_is_away_is_asked_again(
    one: Registry, two: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefetch = Prefetch(two)
    prefetch.look()
    made = one.publish(model_folder, "signs", SOURCE, promote=True)

    def fail(*_: Any) -> None:
        raise StoreUnavailable("The store is away.")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectTrees, "get", fail)
        prefetch.look()
    assert not two.get(made.id).is_here
    prefetch.look()
    assert two.get(made.id).is_here


def test_a_damaged_version_is_not_downloaded_on_and_on(
    one: Registry, two: Registry, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefetch = Prefetch(two)
    prefetch.look()
    made = one.publish(model_folder, "signs", SOURCE, promote=True)
    shutil.rmtree(made.path)
    one.trees._trees.delete(f"models/signs/{made.version}")
    asked = []
    fetch = two.trees.fetch

    def count(name: str, version: str) -> Path:
        asked.append(version)
        return fetch(name, version)

    monkeypatch.setattr(two.trees, "fetch", count)
    for _ in range(3):
        prefetch.look()
    assert asked == [made.version]


def test_a_server_looks_while_it_runs(one: Registry, two: Registry, model_folder: Path) -> None:
    async def body() -> str:
        prefetch = Prefetch(two, poll=0.05)
        task = asyncio.create_task(prefetch.run())
        await until(lambda: prefetch._known is not None)
        made = await asyncio.to_thread(
            one.publish, model_folder, "signs", SOURCE, None, promote=True
        )
        await until(lambda: two.trees.is_here("signs", made.version))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return made.id

    assert two.get(asyncio.run(body())).is_here
