"""A publication or deletion that is cut short, at every step, and many at once."""

from __future__ import annotations

import os
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import models_store.publication
import models_store.registry
from database import Database
from models_store.publication import Publisher
from models_store.registry import Registry
from models_store.store import ModelStore
from settings import Settings

Publish = Callable[..., str]
Step = tuple[Any, str, int]  # whose function, its name, at which call


def folders(registry: Registry) -> list[Path]:
    """Everything the store holds: versions, and unfinished or deleted ones."""
    store = registry.store
    staged = store.home / "visionloop-staging"
    return [*store.models.glob("*/*/"), *staged.glob("*")]


class Cut(BaseException):
    """Not an Exception, as little as a KeyboardInterrupt is."""


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (ModelStore, "add"),
        (ModelStore, "_write_manifest"),
        (os, "rename"),
        (Database, "write"),
        (Publisher, "_row_exists"),
    ],
)
def test_a_failing_step_of_a_publication_leaves_nothing(
    registry: Registry,
    model_folder: Path,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    step: str,
) -> None:
    before = publish()

    def cut(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, cut)
        if step == "_row_exists":
            patch.setattr(Database, "write", cut)
        with pytest.raises(Cut):
            registry.publish(model_folder, "signs", {}, promote=True)
    registry.refresh()
    assert [model.id for model in registry.list()] == [before]
    registry.sweep()
    assert len(folders(registry)) == 1


def in_a_child(work: Callable[[], None]) -> int:
    """Fork, do the work with nothing inherited but memory, and exit; returns the process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def run_until_killed(step: Step, work: Callable[[Registry], object]) -> None:
    """Do it in a child that kills itself -9 when it comes to a step for the nth time."""
    owner, name, calls = step

    def die_at_step() -> None:
        original, left = getattr(owner, name), [calls]

        def die(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        registry = Registry(Database(Settings()))
        setattr(owner, name, die)
        work(registry)

    _, status = os.waitpid(in_a_child(die_at_step), 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("step", "visible"),
    [
        pytest.param((shutil, "copyfile", 3), False, id="copying"),
        pytest.param((os, "rename", 1), False, id="staged"),
        pytest.param((models_store.publication, "as_row", 1), False, id="in place"),
        pytest.param((models_store.publication, "raise_generation", 1), False, id="row written"),
        pytest.param((ModelStore, "mark_published", 1), True, id="committed"),
        pytest.param((ModelStore, "write_promoted", 1), True, id="published"),
    ],
)
def test_kill_9_during_a_publication_leaves_all_or_nothing(
    registry: Registry, model_folder: Path, step: Step, visible: bool
) -> None:
    run_until_killed(step, lambda child: child.publish(model_folder, "signs", {}, promote=True))
    registry.refresh()
    assert len(registry.list()) == visible
    registry.sweep()
    assert len(folders(registry)) == len(registry.list()) == visible
    assert registry.reindex() == []
    assert registry.publish(model_folder, "signs", {}).name == "signs"


@pytest.mark.parametrize(
    ("step", "visible"),
    [
        pytest.param((ModelStore, "mark_unpublished", 1), True, id="before"),
        pytest.param((models_store.registry, "raise_generation", 1), True, id="marked"),
        pytest.param((ModelStore, "remove", 1), False, id="row gone"),
        pytest.param((shutil, "rmtree", 1), False, id="renamed"),
    ],
)
def test_kill_9_during_a_deletion_leaves_all_or_nothing(
    registry: Registry, publish: Publish, step: Step, visible: bool
) -> None:
    model = publish()
    run_until_killed(step, lambda child: child.delete(model))
    registry.refresh()
    assert len(registry.list()) == visible
    registry.reindex()
    assert len(registry.list()) == len(folders(registry)) == visible


def test_several_processes_publish_promote_and_list_at_once(
    registry: Registry, model_folder: Path
) -> None:
    def work() -> None:
        mine = Registry(Database(Settings()))
        for _ in range(4):
            model = mine.publish(model_folder, "signs", {"kind": "train"}, promote=True)
            mine.activate("signs")
            assert model.id in {other.id for other in mine.list()}
            assert all((other.path / "model.onnx").is_file() for other in mine.list())

    children = [in_a_child(work) for _ in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    registry.refresh()
    assert len(registry.list()) == len(folders(registry)) == 16
    assert sum(model.promoted for model in registry.list()) == 1
    assert registry.active().promoted
    assert registry.reindex() == []
