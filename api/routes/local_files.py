"""`/api/training/select-local-file`: selection of a file on the server's machine."""

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
from api.groups import DATASETS
from api.middleware.auth import require_train, require_use
from api.middleware.proxies import names_proxy
from api.middleware.request_state import exchange
from api.schemas import errors
from dataset.allowed_roots import confine, data_roots, is_inside, real_path
from dataset.image_files import is_folder, is_junk
from errors import NotFound
from source_tree import ROOT, module_command, module_environment
from training.planning.base_models import WEIGHT_FILES

router = APIRouter(prefix="/api/training", tags=[DATASETS], dependencies=[Depends(require_use)])

SELECT = "/api/training/select-local-file"
MAX_ENTRIES = 2000
DIALOG_TIMEOUT = 45.0  # seconds after which a dialog is closed; less than a request's timeout

FileType = Literal["model", "dataset"]
SUFFIXES: dict[str, tuple[str, ...]] = {
    "model": WEIGHT_FILES,
    "dataset": (".yaml", ".yml"),  # for a dataset of class folders, its folder is chosen
}

_one_at_a_time = asyncio.Lock()  # held while a dialog is open


class FileEntry(BaseModel):
    name: str
    path: str = Field(description="the path, to send as `data_path` or a similar field")
    type: Literal["directory", "file"]
    size: int | None = Field(description="size in bytes; null for a folder")


class Selection(BaseModel):
    """A chosen file, or the entries to choose from."""

    path: str | None = Field(description="the file chosen in a dialog on the server's desktop")
    root: str | None = Field(
        None, description="the listed folder; null: the allowed roots are listed"
    )
    entries: list[FileEntry] | None = None
    truncated: bool | None = Field(None, description="whether there are more entries than listed")


@router.get(
    "/select-local-file",
    response_model=Selection,
    response_model_exclude_none=False,
    responses=errors(400, 403, 404),
    dependencies=[Depends(require_train)],
)
async def select_local_file(
    request: Request,
    gateway: GatewayDep,
    file_type: FileType = "dataset",
    folder: str = Query("", alias="dir", max_length=4096, description="a listed folder's path"),
) -> Any:
    """Open a dialog if the server has a desktop and the caller is on that machine; else list.

    The list has the folders and matching files below VISIONLOOP_HOME/datasets and
    VISIONLOOP_DATA_ROOTS; `dir` chooses a folder of it.
    """
    roots = data_roots(gateway.settings)
    if not folder and is_local(request) and has_desktop() and not _one_at_a_time.locked():
        async with _one_at_a_time:
            chosen = await ask(file_type)
        if chosen:
            return {"path": str(confine(chosen, roots))}
    return await asyncio.to_thread(listing, folder, file_type, roots)


def listing(folder: str, file_type: FileType, roots: Sequence[Path]) -> dict[str, Any]:
    """List the folders and the files of a type in a folder inside `roots`; else the roots.

    Args:
        folder: Path of the folder; empty: list the roots.
        file_type: Type of the files to list.
        roots: Folders that may be listed, with everything in them.

    Raises:
        Forbidden: The folder is outside the roots.
        NotFound: There is no such folder.
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
        raise NotFound(
            f"There is no readable folder '{folder}'. Without 'dir' the answer lists the allowed "
            "folders."
        ) from None
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
        "entries": entries[:MAX_ENTRIES],
        "truncated": len(entries) > MAX_ENTRIES,
    }


def _entry(name: str, path: Path, directory: bool, size: int | None) -> dict[str, Any]:
    kind = "directory" if directory else "file"
    return {"name": name, "path": str(path), "type": kind, "size": size}


def is_local(request: Request) -> bool:
    """Whether the caller is on this machine, and not a proxy or a page of another site.

    See `api.middleware.proxies.Proxies` for what tells of a proxy.
    """
    if request.client is None or exchange(request.scope).proxied:
        return False
    if names_proxy(request.headers.keys()):
        return False
    if request.headers.get("sec-fetch-site") == "cross-site":
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def has_desktop() -> bool:
    """Whether this machine can show a dialog."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not display:
        return False
    return importlib.util.find_spec("_tkinter") is not None


async def ask(file_type: FileType) -> str | None:
    """The path chosen in the dialog; None if it was cancelled or timed out."""
    child = await asyncio.create_subprocess_exec(
        *module_command("api.local_dialog", file_type),
        cwd=ROOT,
        env=module_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(DIALOG_TIMEOUT):
            output, _ = await child.communicate()
    except TimeoutError:
        return None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return output.decode(errors="surrogateescape").strip() or None
