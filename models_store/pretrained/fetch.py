"""Brings pretrained weights into the registry: downloaded, converted by the importer, published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from errors import BackendUnavailable, Forbidden, ModelNotFound
from files import temporary_folder
from models_store.foreign.importer import Conversion, import_model
from models_store.pretrained.catalogue import PretrainedFile
from models_store.pretrained.download import (
    LIMITS,
    FetchFailed,
    HostFailed,
    Limits,
    Watch,
    download,
    host_of,
)
from models_store.registry import Registry
from models_store.versions import ModelVersion
from settings import Settings

POLL = 0.5  # seconds


@dataclass(frozen=True)
class Fetched:
    """Pretrained weights in the registry.

    Attributes:
        model: The version.
        new: Whether they were fetched now; else they were there.
        told: A sentence on where they came from.
    """

    model: ModelVersion
    new: bool
    told: str


def require_allowed(settings: Settings, file: PretrainedFile) -> None:
    """Refuse to fetch weights if the settings do.

    Raises:
        Forbidden: VISIONLOOP_ALLOW_DOWNLOAD is never.
    """
    if settings.allow_download == "never":
        raise Forbidden(
            f"Fetching is switched off (VISIONLOOP_ALLOW_DOWNLOAD=never). Get {file.file} "
            f"elsewhere and import it: visionloop models import {file.file} "
            f"--name {file.model_name}"
        )


def with_remedy(file: PretrainedFile, error: FetchFailed) -> BackendUnavailable:
    """The error for whoever asked for the weights themselves: the reason, and what to do."""
    network = "check the network and HTTPS_PROXY, name a mirror by VISIONLOOP_DOWNLOAD_URL, or "
    return BackendUnavailable(
        f"{error.message.rstrip('.')}. What to do: "
        f"{network if isinstance(error, HostFailed) else ''}get {file.file} elsewhere and import "
        f"it: visionloop models import {file.file} --name {file.model_name}"
    )


def present(registry: Registry, file: PretrainedFile) -> ModelVersion | None:
    """The weights of a file as a version of the registry, if they were fetched before."""
    try:
        found = registry.get(file.model_name)
    except ModelNotFound:
        return None
    same = (found.description.task, found.description.family) == (file.task, file.family)
    return found if same else None


def fetch(
    registry: Registry,
    file: PretrainedFile,
    folder: Path,
    watch: Watch,
    *,
    job_id: str | None = None,
    retry: bool = False,
    promote: bool = False,
    limits: Limits = LIMITS,
) -> Fetched:
    """Fetch weights, unless they are in the registry. One process at a time fetches a file.

    Args:
        registry: Where they are looked up and published.
        file: What to fetch.
        folder: Where the file lies until it is converted; nothing stays there.
        watch: Is told and asked meanwhile.
        job_id: The job that fetches them, for the model's source.
        retry: Try a host even if it failed a moment ago.
        promote: Make a fetched version the promoted one of its name.
        limits: How long to wait for what.

    Raises:
        FetchFailed: They cannot be fetched; the message says why.
        InvalidModelFile: What came is no such model.
        InsufficientStorage: The disk has no room.
    """
    if (found := present(registry, file)) is not None:
        return _there(found)
    folder.mkdir(parents=True, exist_ok=True)
    locks = registry.settings.paths.pretrained
    locks.mkdir(parents=True, exist_ok=True)
    with _alone(locks / f"{file.network}.lock", file, watch):
        registry.refresh()
        if (found := present(registry, file)) is not None:
            return _there(found)
        host = host_of(file, registry.settings)
        watch.log(f"Fetching {file.file} from {host}.")
        with temporary_folder(folder) as temporary:
            came = download(file, temporary, registry.settings, watch, retry=retry, limits=limits)
            watch.check()
            watch.log(f"Converting {file.file} ({came.checked}).")
            model = import_model(
                registry,
                came.path,
                Conversion(
                    family=file.family,
                    task=file.task,
                    names=_class_names(file),
                    description=f"Pretrained on {file.data}: {file.file}, fetched from {host}.",
                ),
                name=file.model_name,
                promote=promote,
                source={
                    "kind": "fetch",
                    "address": came.address,
                    "verified": came.verified,
                    "fetched_by": job_id,
                },
            )
    return Fetched(model, True, f"{file.file} was fetched from {host} ({came.checked})")


def _there(model: ModelVersion) -> Fetched:
    return Fetched(model, False, f"{model.id} is in the registry")


@contextmanager
def _alone(path: Path, file: PretrainedFile, watch: Watch) -> Iterator[None]:
    """A context that one process at a time is in; the others wait, and may be cancelled."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        watch.log(f"Waiting: another process is fetching {file.file}.")
        while not lock.is_locked:
            watch.check()
            with suppress(Timeout):
                lock.acquire(timeout=POLL)
    try:
        yield
    finally:
        lock.release()


def _class_names(file: PretrainedFile) -> Sequence[str] | None:
    """The class names that a file does not have itself: those of torchvision's MobileNetV2."""
    if file.family != "mobilenet":
        return None
    from torchvision.models import MobileNet_V2_Weights  # imports torch

    names: list[str] = []
    for name in MobileNet_V2_Weights.IMAGENET1K_V2.meta["categories"]:
        names.append(name if name not in names else f"{name} (2)")  # crane, maillot
    return names
