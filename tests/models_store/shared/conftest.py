"""Two machines: each with homes of its own, on one object store and one database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from database import Database
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings

Machine = Callable[[str], Registry]


@pytest.fixture
def machine(tmp_path: Path, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """The registry of a machine, as a process that starts there opens it."""
    opened = []

    def open_registry(name: str) -> Registry:
        settings = Settings(
            home=tmp_path / name / "home",
            database_url=f"sqlite:///{tmp_path / 'shared.db'}",
            store_url=store_url,
        )
        registry = Registry(
            Database(settings), ModelStore(tmp_path / name / "bento"), refresh_seconds=0
        )
        opened.append(registry)
        return registry

    yield open_registry
    for registry in opened:
        registry.database.close()


@pytest.fixture
def one(machine: Machine) -> Registry:
    return machine("one")


@pytest.fixture
def two(machine: Machine, one: Registry) -> Registry:
    return machine("two")
