"""Makes the engines again that a version before exported, in the background.

Such an engine takes squares only. It serves until the new one is complete; the runners then load
that one by themselves, see `ModelRuntime`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence

from inference.engine_files import is_outdated
from models_store.registry import Registry
from models_store.versions import ModelVersion
from source_tree import ROOT, module_command, module_environment

log = logging.getLogger("visionloop")

PAUSE = 2.0  # seconds without a request before the next engine is begun
LONGEST_WAIT = 300.0  # seconds; then it is begun all the same, at the lowest priority

WaitIdle = Callable[[float], Awaitable[None]]


async def renew_engines(registry: Registry, wait_idle: WaitIdle) -> None:
    """Make the outdated engines of all models again, one after another.

    Args:
        registry: Contains the models.
        wait_idle: Returns once no request has been in progress for this number of seconds.
    """
    try:
        models = await asyncio.to_thread(_outdated, registry)
        if not models:
            return
        read_only = [model for model in models if not os.access(model.path, os.W_OK)]
        if read_only:
            log.warning(
                "%d engine(s) were exported by a version before and take squares only. The model "
                "store is read-only, so they stay: %s",
                len(read_only),
                ", ".join(model.id for model in read_only),
            )
        writable = [model for model in models if model not in read_only]
        if writable:
            await _renew_all(writable, wait_idle)
    except Exception:
        log.exception("The engines of the version before could not be made again")


async def _renew_all(models: Sequence[ModelVersion], wait_idle: WaitIdle) -> None:
    log.info(
        "%d engine(s) were exported by a version before and take squares only. They serve "
        "until they are made again, in the background, one at a time.",
        len(models),
    )
    for left, model in zip(reversed(range(len(models))), models, strict=True):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT):
                await wait_idle(PAUSE)
        reason = await _renew(model)
        if reason:
            log.warning(
                "The engine of %s could not be made again, and serves as it is: %s. %d left.",
                model.id,
                reason.rstrip("."),
                left,
            )
        else:
            log.info("Made the engine of %s again; %d left.", model.id, left)


def _outdated(registry: Registry) -> list[ModelVersion]:
    """The versions with outdated engines; those that serve first."""
    found = [v for v in registry.list() if v.is_here and is_outdated(v.path, v.description)]
    return sorted(found, key=lambda version: (not version.active, not version.promoted))


async def _renew(model: ModelVersion) -> str:
    """Make an engine again in a child process. Returns why that failed; empty if it did not."""
    # Started from the event loop's thread: the child ends with the thread that started it.
    child = await asyncio.create_subprocess_exec(
        *module_command(
            "models_store.subprocesses", str(os.getpid()), "inference.engine_files", model.path
        ),
        cwd=ROOT,
        env=module_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await child.communicate()
    finally:
        if child.returncode is None:  # the gateway stops
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            await child.wait()
    lines = (output if output.strip() else errors).decode(errors="replace").strip().splitlines()
    if child.returncode == 0:
        return ""
    return lines[-1] if lines else f"exit code {child.returncode}"
