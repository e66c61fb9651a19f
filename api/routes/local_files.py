"""`/api/training/select-local-file`: choosing a file on the server's machine."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import stat
import sys
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from api.dependencies import GatewayDep
from api.middleware.auth import require_admin
from api.schemas import errors
from dataset.allowed_roots import confine, data_roots, is_inside, real_path
from dataset.image_files import is_folder, is_junk
from errors import NotFound
from source_tree import ROOT, module_command, module_environment
from training.planning.base_models import WEIGHT_FILES

router = APIRouter(prefix="/api/training", tags=["Data sets"])

SELECT = "/api/training/select-local-file"
MOST_ENTRIES = 2000
PATIENCE = 45.0  # seconds a dialog may stay open; less than a request may take

FileType = Literal["model", "dataset"]
SUFFIXES: dict[str, tuple[str, ...]] = {
    "model": WEIGHT_FILES,
    "dataset": (".yaml", ".yml"),  # a tree of class folders is chosen by its folder
}

_one = asyncio.Lock()  # dialog at a time


class FileEntry(BaseModel):
    name: str
    path: str = Field(description="what `data_path` and the like take")
    type: Literal["directory", "file"]
    size: int | None = Field(description="bytes; null for a folder")


class Selection(BaseModel):
    """A chosen file, or what there is to choose from."""

    path: str | None = Field(description="what was chosen in a dialog on the server's desktop")
    root: str | None = Field(None, description="the folder that is listed; null: several roots")
    entries: list[FileEntry] | None = None
    truncated: bool | None = Field(None, description="whether there are more entries")


@router.get(
    "/select-local-file",
    response_model=Selection,
    response_model_exclude_none=False,
    responses=errors(400, 403, 404),
    dependencies=[Depends(require_admin)],
)
async def select_local_file(
    request: Request,
    gateway: GatewayDep,
    file_type: FileType = "dataset",
    folder: str = Query("", alias="dir", max_length=4096, description="a listed folder's path"),
) -> Any:
    """Ask with a desktop dialog where there is a desktop and the caller sits at it; else list.

    The listing shows folders and fitting files below VISIONLOOP_HOME/datasets and
    VISIONLOOP_DATA_ROOTS; `dir` walks down.
    """
    roots = data_roots(gateway.settings)
    if not folder and is_local(request) and has_desktop() and not _one.locked():
        async with _one:
            chosen = await ask(file_type)
        if chosen:
            return {"path": str(confine(chosen, roots))}
    return await asyncio.to_thread(listing, folder, file_type, roots)


def listing(folder: str, file_type: FileType, roots: Sequence[Path]) -> dict[str, Any]:
    """The folders and fitting files of a folder inside `roots`; of no folder, the roots.

    Raises:
        Forbidden: The folder is outside.
        NotFound: There is none.
    """
    if not folder:
        there = [root for root in roots if root.is_dir()]
        if len(there) != 1:
            entries = [_entry(root.name, root, True, None) for root in there]
            return {"path": None, "root": None, "entries": entries, "truncated": False}
        folder = str(there[0])
    real = confine(folder, roots)
    try:
        with os.scandir(real) as found:
            every = sorted(found, key=lambda entry: (not is_folder(entry), entry.name.lower()))
    except OSError:
        raise NotFound(f"There is no folder '{folder}' that can be read.") from None
    entries = []
    for entry in every:
        if is_junk(entry.name):
            continue
        if entry.is_symlink() and not is_inside(real_path(entry.path), roots):
            continue
        with contextlib.suppress(OSError):
            facts = entry.stat()
            if stat.S_ISDIR(facts.st_mode):
                entries.append(_entry(entry.name, real / entry.name, True, None))
            elif entry.name.lower().endswith(SUFFIXES[file_type]):
                entries.append(_entry(entry.name, real / entry.name, False, facts.st_size))
    return {
        "path": None,
        "root": str(real),
        "entries": entries[:MOST_ENTRIES],
        "truncated": len(entries) > MOST_ENTRIES,
    }


def _entry(name: str, path: Path, directory: bool, size: int | None) -> dict[str, Any]:
    kind = "directory" if directory else "file"
    return {"name": name, "path": str(path), "type": kind, "size": size}


def is_local(request: Request) -> bool:
    """Whether the caller is on this machine, not behind a proxy on it, and no page of another
    site that somebody at this machine has opened."""
    headers = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
    if request.client is None or any(name in request.headers for name in headers):
        return False
    if request.headers.get("sec-fetch-site") == "cross-site":
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def has_desktop() -> bool:
    """Whether a dialog could be shown."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not display:
        return False
    return importlib.util.find_spec("_tkinter") is not None


async def ask(file_type: FileType) -> str | None:
    """What the person at this machine chose; None if nothing, or not in time."""
    child = await asyncio.create_subprocess_exec(
        *module_command("api.local_dialog", file_type),
        cwd=ROOT,
        env=module_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            output, _ = await child.communicate()
    except TimeoutError:
        return None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return output.decode(errors="surrogateescape").strip() or None
