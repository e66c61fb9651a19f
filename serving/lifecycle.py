"""The steps of a server's start, in order.

1. `usable_settings` and `install_patches`: in every process, when `service.py` is imported.
2. `prepare`: in the supervisor, before the service processes start.
3. `finish_startup`: in every service process, at the end of its start-up hook.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bentoml import server_context
from filelock import Timeout
from pydantic import ValidationError

import process_log
import tracing
from errors import StoreRefused, VisionLoopError
from files import HomeLock
from home_paths import SERVER_LOCK, database_lock, unfinished_restore
from inference.device import check_engine, device
from jobs.execution.gpus import check_gpus
from models_store.store import bento_home
from serving import bentoml_patches, http_protocol, metrics_folder
from settings import Settings, get_settings, refusals, settings_without_effect

if TYPE_CHECKING:
    from database import Database
    from exclusive import HeldForLife

log = logging.getLogger("visionloop")

SERVER_PATIENCE = 5.0  # seconds that a start waits for a server that is just ending
OPEN_FILES = 65_536  # limit of open files of a process, if the system permits it
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_held: dict[Path, HomeLock] = {}  # by file; without this reference, gc would release them
_database_locks: list[HeldForLife] = []  # likewise


def usable_settings() -> Settings:
    """The settings; exits with a message for each setting that cannot be used."""
    try:
        settings = get_settings()
        device(settings)
        check_engine(settings)
        check_gpus(settings)
        if (refused := tracing.refusal(os.environ)) is not None:
            sys.exit(process_log.last_words(refused))
    except ValidationError as error:
        sys.exit(process_log.last_words("\n".join(refusals(error))))
    except RuntimeError as error:
        sys.exit(process_log.last_words(str(error)))
    return settings


def install_patches(settings: Settings) -> None:
    """Install our replacements of parts of BentoML and uvicorn in this process."""
    bentoml_patches.use_own_metrics_folder(settings)
    bentoml_patches.cancel_timers()
    http_protocol.install()
    # uvicorn reads it; its default believes every process of this machine.
    os.environ["FORWARDED_ALLOW_IPS"] = ",".join(settings.trusted_proxies)
    if server_context.worker_index is None:
        # Imported late: the service processes do not need the supervisor's modules.
        from serving import supervisor

        supervisor.install(settings)
    else:
        process_log.configure(settings, _service)
        bentoml_patches.record_no_spans()


def _service() -> str:
    """The name of this process in its log lines; BentoML sets it once `service.py` is loaded."""
    return str(server_context.service_name or "service")


def prepare(settings: Settings) -> None:
    """Start the log, lock the folders, log the settings, import the starter models.

    Exits with a message if another server uses the same folders.
    """
    if "BENTOML_NO_UDS" in os.environ:
        reason = (
            "BENTOML_NO_UDS: the runners would listen on TCP ports, which every user of this "
            "machine can reach. Unset it."
        )
        sys.exit(process_log.last_words(reason))
    # Imported late: the service processes do not need the supervisor's modules.
    from serving import supervisor

    bentoml_patches.enter_source_tree(settings)
    supervisor.start_log(settings)
    hold(settings.home, "VISIONLOOP_HOME")
    refuse_unfinished_restore(settings.home)
    hold(bento_home(), "BENTOML_HOME")
    make_private(bento_home())
    hold_file(settings)
    metrics_folder.renew(settings)
    atexit.register(metrics_folder.remove, settings)
    announce(settings)
    fill(settings)


def make_private(home: Path) -> None:
    """Let only its owner enter a BENTOML_HOME that has neither models nor Bentos yet.

    BentoML makes the folder when it is imported, open to others. Later its mode is the owner's.
    """
    with contextlib.suppress(OSError):
        if not any(os.listdir(home / name) for name in ("models", "bentos")):
            home.chmod(0o700)


def hold(folder: Path, variable: str) -> None:
    """Acquire the server lock of a folder until this process ends; further calls do nothing.

    Exits with a message if another server holds the lock, or the folder cannot be created.
    """
    folder = folder.resolve()
    remedy = f"Stop it, or set {variable} to another folder."
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _hold(folder / SERVER_LOCK, f"Another VisionLoop server is using {folder}. {remedy}")
    except OSError as error:
        sys.exit(f"{variable} cannot be used: {error.strerror}: {folder}")


def hold_file(settings: Settings) -> None:
    """Acquire the server lock of a SQLite file until this process ends, whatever its home.

    Its other locks are in the home: the servers of two homes would both start its jobs. Exits with
    a message if another server holds it.
    """
    url = settings.sqlalchemy_url
    place = str(url.database).removeprefix("file:")
    if url.get_backend_name() != "sqlite":
        return
    file = Path(place).resolve()
    refused = (
        f"Another VisionLoop server is using the database {file}. A SQLite file belongs to one "
        "VISIONLOOP_HOME: stop the other server, or set VISIONLOOP_DATABASE_URL to another file. "
        "Several servers share a PostgreSQL, with the same VISIONLOOP_STORE_URL."
    )
    if not file.parent.is_dir():  # the lock would make it, though its disk is just not mounted
        sys.exit(
            f"VISIONLOOP_DATABASE_URL cannot be used: there is no folder {file.parent}. Mount its "
            "disk, or create it."
        )
    try:
        _hold(database_lock(file), refused)
    except OSError as error:
        sys.exit(f"VISIONLOOP_DATABASE_URL cannot be used: {error.strerror}: {file}")


def _hold(file: Path, refused: str) -> None:
    """Hold a lock file until this process ends; exits with a message if another one does.

    Raises:
        OSError: The file cannot be made.
    """
    if file in _held:
        return
    lock = HomeLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        sys.exit(refused)
    _held[file] = lock


def hold_database(database: Database, patience: float = SERVER_PATIENCE) -> HeldForLife | None:
    """Hold a database of several machines until this process ends.

    Exits with a message if another server uses it, unless both have an object store: without one,
    each has files that the other's rows name. None for SQLite, which `hold_file` protects.
    """
    if not database.is_shared:
        return None
    from exclusive import HeldForLife

    lock = database.exclusive("server", shared=database.settings.store_url is not None)
    try:
        lock.acquire(patience)
    except Timeout:
        sys.exit(
            "Another VisionLoop server uses the database of VISIONLOOP_DATABASE_URL. Several share "
            "one only if all of them have the same VISIONLOOP_STORE_URL, where their files are. "
            "Set it for all, or stop the other server."
        )
    return HeldForLife(
        lock,
        "Another VisionLoop server has begun to use the database of VISIONLOOP_DATABASE_URL, while "
        "this one could not reach it. Without VISIONLOOP_STORE_URL on both, each names files that "
        "the other has: stop one of them.",
    )


def refuse_unfinished_restore(home: Path) -> None:
    """Exit with a message if a restore into the home was killed while it put files in place."""
    if sentence := unfinished_restore(home):
        sys.exit(sentence)


def announce(settings: Settings) -> None:
    """Log the settings with secrets masked, and warnings."""
    shown = ", ".join(f"{name}={value}" for name, value in settings.masked().items())
    log.info("Settings: %s", shown)
    for line in settings_without_effect(settings, os.environ):
        log.warning("%s", line)
    for folder in (settings.home, bento_home()):
        if mode := _open_to_others(folder):
            log.warning(
                "Other users of this machine can enter %s (mode %o). If they shall not: "
                "chmod 700 %s",
                folder,
                mode,
                folder,
            )
    if _has_another_name(settings.paths.database):
        log.warning(
            "%s has another name (a hard link, as `cp -l` makes it). A server on a home with that "
            "name would destroy the database of both. Copy the file, and back up as "
            "docs/how-to/back-up.md says.",
            settings.paths.database,
        )


def announce_access(settings: Settings, closed: bool = False, valid: int = 0) -> None:
    """Log which requests need a token.

    Args:
        settings: They may have tokens.
        closed: Whether named tokens have every request need one.
        valid: Number of named tokens that can be used.
    """
    named = f" {valid} named tokens are valid: visionloop tokens list." if valid else ""
    if settings.token:
        log.info("Every request needs a token.%s", named)
    elif closed and (named or settings.admin_token):
        log.info("Every request needs a token, since named tokens were created.%s", named)
    elif closed:
        log.warning(
            "Every request needs a token, but none is valid. Create one: visionloop tokens create "
            "NAME --scope admin. Or let everyone in again: visionloop tokens open."
        )
    elif settings.admin_token:
        log.info("Requests need no token; administration needs the admin token.")
    else:
        log.warning(
            "No token is required: everyone who can reach the port can use this server. Set "
            "VISIONLOOP_TOKEN to require a token, or create one: visionloop tokens create NAME "
            "--scope admin."
        )


def _has_another_name(file: Path) -> bool:
    with contextlib.suppress(OSError):
        return file.stat().st_nlink > 1
    return False


def _open_to_others(home: Path) -> int:
    """The home's mode if users other than its owner can enter it, else 0."""
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(home.stat().st_mode)
        return mode if mode & 0o011 else 0
    return 0


def fill(settings: Settings) -> None:
    """Repair the model store after a crash; import the starter models at the first start."""
    # Imported late: SQLAlchemy takes 0.2 s, and the runners import this module without needing it.
    from sqlalchemy.exc import SQLAlchemyError

    from access.tokens import Snapshot, TokenStore
    from database import Database
    from evaluation.store import EvaluationStore
    from models_store.maintenance import present
    from models_store.registry import Registry
    from models_store.seed import seed
    from storage.agreement import agree_on_store
    from storage.place import open_trees

    log.info("Checking the models; the first start imports the starter models ...")
    try:
        database = Database(settings)
        database.check()
        if (lock := hold_database(database)) is not None:
            _database_locks.append(lock)
        agree_on_store(database)
        access = TokenStore(database).snapshot(Snapshot())
    except VisionLoopError as error:  # locked, damaged, of a newer version, or the disk is full
        sys.exit(f"{_place(settings)}: {error.message}")
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        sys.exit(f"{_place(settings)} cannot be used: {reason}")
    valid = sum(token.state == "valid" for token in access.tokens)
    announce_access(settings, access.closed, valid)
    try:
        open_trees(settings).check()
    except StoreRefused as error:
        sys.exit(f"VISIONLOOP_STORE_URL: {error.message}")
    except VisionLoopError as error:  # models that are here can serve; others wait
        log.warning("VISIONLOOP_STORE_URL: %s", error.message)
    registry = Registry(database)
    evaluations = EvaluationStore(database)
    try:
        swept = registry.sweep()
        # If there is no model at all, perhaps their disk is not mounted: keep the evaluations.
        if there := present(registry.store, registry.database):
            evaluations.keep_only(there)
        for message in swept + seed(registry):
            log.info("%s", message)
    except VisionLoopError as error:  # the existing models can still serve
        log.warning("The starter models are not complete: %s", error.message)
    finally:
        database.close()


def _place(settings: Settings) -> str:
    if settings.sqlalchemy_url.get_backend_name() == "sqlite":
        return f"The database {settings.sqlalchemy_url.database}"
    return "The database of VISIONLOOP_DATABASE_URL"


def finish_startup(settings: Settings) -> None:
    """Set up tracing, the limit of open files, the parent-death signal and `gc.freeze`.

    On Linux the kernel sends this process SIGTERM when the supervisor dies, even by SIGKILL, so
    that no orphaned process keeps the port open. Every connection is an open file, and one address
    may open nearly as many as the usual limit of 1,024 (`http_protocol`). Objects created during
    the start are excluded from garbage collection, which reduces the highest latencies.
    """
    tracing.configure(_service())
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the supervisor died before the prctl call
            os.kill(os.getpid(), signal.SIGTERM)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    gc.collect()
    gc.freeze()
