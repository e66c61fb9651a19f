"""What happens around a server's life: its locks, its first start, its processes' end."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from errors import VisionLoopError
from inference.device import device
from models_store.store import bento_home
from serving.bentoml_patches import enter_source_tree
from settings import Settings, get_settings

LOCK = ".visionloop-server.lock"
_PR_SET_PDEATHSIG = 1


_held: dict[Path, FileLock] = {}


def usable_settings() -> Settings:
    """The settings, or the end of the program with a sentence for each that is not usable."""
    try:
        settings = get_settings()
        device(settings)
    except ValidationError as error:
        sentences = [
            f"VISIONLOOP_{'_'.join(map(str, found['loc'])).upper()}: {found['msg']}."
            for found in error.errors()
        ]
        sys.exit("\n".join(sentences))
    except RuntimeError as error:
        sys.exit(str(error))
    return settings


def prepare(settings: Settings) -> None:
    """Before the processes of a server start, in the supervisor: lock, announce, seed.

    Ends the program with one sentence where another server uses the same folders.
    """
    enter_source_tree(settings)
    hold(settings.home, "VISIONLOOP_HOME")
    hold(bento_home(), "BENTOML_HOME")
    shutil.rmtree(settings.paths.metrics, ignore_errors=True)
    settings.paths.metrics.mkdir(parents=True)
    announce(settings)

    fill(settings)


def fill(settings: Settings) -> None:
    """Tidy the model store after a crash, and put the starter models in at the first start."""
    # Late: SQLAlchemy takes a fifth of a second, and the runners import this file too.
    from database import Database
    from evaluation.store import EvaluationStore
    from models_store.maintenance import present
    from models_store.registry import Registry
    from models_store.seed import seed

    print("Looking through the models; the first start prepares the starters ...", flush=True)
    database = Database(settings)
    registry = Registry(database)
    evaluations = EvaluationStore(database)
    try:
        swept = registry.sweep()
        if there := present(
            registry.store, registry.database
        ):  # none: perhaps the models' disk is not mounted
            evaluations.keep_only(there)
        for sentence in swept + seed(registry):
            print(sentence, flush=True)
    except VisionLoopError as error:  # what is there already can still serve
        print(f"The starter models are not complete: {error.message}", flush=True)
    finally:
        database.close()


def hold(folder: Path, variable: str) -> None:
    """Take the server lock of a folder until this process ends; asking again is harmless."""
    folder = folder.resolve()
    if folder in _held:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        sys.exit(
            f"Another VisionLoop server is using {folder}. Stop it, or set {variable} to "
            "another folder."
        )
    except OSError as error:
        sys.exit(f"{variable} cannot be used: {error.strerror}: {folder}")
    _held[folder] = lock


def announce(settings: Settings) -> None:
    """Print the settings once, secrets masked, and what needs a token."""
    print("Settings:", ", ".join(f"{name}={value}" for name, value in settings.masked().items()))
    if settings.token:
        print("Every call needs a token.", flush=True)
    elif settings.admin_token:
        print("Open for use; administration needs the admin token.", flush=True)
    else:
        print(
            "Open to whoever reaches the port. Set VISIONLOOP_TOKEN to ask for a token.",
            flush=True,
        )


def settle(settings: Settings) -> None:
    """What every server process does once it is set up: logs as much as asked for.

    Ends it with its supervisor, even a killed one (Linux), so that no orphan keeps the port;
    and keeps start-up objects out of garbage collection, which cuts the worst latencies.
    """
    logging.getLogger("visionloop").setLevel(settings.log_level)
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
    gc.collect()
    gc.freeze()
