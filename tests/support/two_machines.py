"""Two machines: applications with a home each, on one database and one object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app, with_middleware
from database import Database
from jobs.store import JobStore
from models_store.registry import Registry
from serving.gateway import Gateway
from settings import Settings
from storage.place import open_trees
from tests.support.training_app import Service

Machines = tuple[Service, Service]
Stores = tuple[JobStore, JobStore]


def machine_settings(folder: Path, name: str, store_url: str, **more: Any) -> Settings:
    """The settings of a machine whose home is a folder of its own."""
    return Settings(
        home=folder / name,
        database_url=f"sqlite:///{folder / 'shared.db'}",
        store_url=store_url,
        device="cpu",
        hosts=("testserver",),
        disk_reserve=0,
        **more,
    )


@pytest.fixture
def machines(
    tmp_path: Path, store_url: str, drawn_yaml: Path, call: Callable[..., httpx.Response]
) -> Iterator[Machines]:
    """The applications of two machines."""
    nobody: Any = {"detector": None, "annotator": None}
    with ExitStack() as stack:

        def opened(name: str) -> Service:
            settings = machine_settings(tmp_path, name, store_url)
            gateway = Gateway(settings, Registry(Database(settings)), nobody)
            stack.callback(gateway.registry.database.close)
            stack.callback(gateway.access.stop)
            app = create_app(gateway)
            wrapped = with_middleware(app, settings, lambda: gateway.access)
            return Service(app, wrapped, gateway, drawn_yaml, call)

        yield opened("a"), opened("b")


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """The jobs of two machines, whose object store is not asked for anything."""
    none = open_trees(Settings(home=tmp_path / "none"))
    for module in ("jobs.shared_folders", "jobs.lost_jobs"):
        monkeypatch.setattr(f"{module}.open_trees", lambda _: none)
    a, b = (
        JobStore(Database(machine_settings(tmp_path, name, "s3://bucket/none"))) for name in "ab"
    )
    yield a, b
    a.database.close()
    b.database.close()
