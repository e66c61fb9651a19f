"""The application whose settings name two webhook receivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.app import create_app, with_middleware
from database import Database
from models_store.registry import Registry
from serving.gateway import Gateway
from settings import Settings
from tests.support.training_app import Call, Service
from tests.support.webhook_receiver import SECRET, Receiver


@contextmanager
def hooked_service(home: Path, data: Path, call: Call, receiver: Receiver) -> Iterator[Service]:
    """Both addresses are of the receiver: one with credentials, and one under `/gone`."""
    private = receiver.url.replace("://", "://me:hunter2@") + "?key=hunter2"
    settings = Settings.model_validate(
        {
            "home": home,
            "device": "cpu",
            "token": "use",
            "admin_token": "admin",
            "webhook_url": (private, receiver.url + "/gone"),
            "webhook_secret": SECRET,
        }
    )
    nobody: Any = {"detector": None, "annotator": None}
    gateway = Gateway(settings, Registry(Database(settings)), nobody)
    app = create_app(gateway)
    yield Service(app, with_middleware(app, settings), gateway, data, call)
    gateway.registry.database.close()
