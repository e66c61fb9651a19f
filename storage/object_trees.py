"""Trees as objects in S3, with obstore."""

from __future__ import annotations

import ctypes
import logging
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from disk_space import NO_ROOM, is_disk_full
from errors import InsufficientStorage, StoreDamaged, StoreRefused, StoreUnavailable
from files import atomic_folder
from setting_values import split_store_url
from storage.tar_stream import pack, unpack
from storage.trees import TreeNotFound, checked

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

log = logging.getLogger(__name__)

TREE, SMALL = ".tar", ".bin"  # ends of the objects' names
PART = 8 * 2**20  # bytes of a request: S3 allows 10,000 parts, so a tree may have 80 GB
PARTS = 2  # that are sent at the same time; each lies in memory
ATTEMPTS = 3  # to read a whole tree: it may be replaced meanwhile
RETRY = 10.0  # seconds of `Retry-After`
RETRIES: RetryConfig = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}
TIMEOUTS: ClientConfig = {
    "connect_timeout": "5s",
    "timeout": "60s",
}  # of one request, its body included
REFUSALS = {
    "NoSuchBucket": "the bucket does not exist",
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is unknown there",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is wrong",
    "AccessDenied": "the credentials do not allow it",
    "169.254.169.254": "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "403 Forbidden": "the credentials are wrong, or do not allow it",
    "401 Unauthorized": "the credentials are wrong",
}
"""What a store says, of which a retry changes nothing → what it means."""


class ObjectTrees:
    """A `TreeStore` in S3: one tar object a tree. Parts of it are in memory, never a whole tree."""

    shared = True

    def __init__(self, url: str) -> None:
        """`url`: `s3://BUCKET/PREFIX`; the rest is in the usual variables `AWS_*`."""
        self.url = url
        bucket, prefix = split_store_url(url)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""

        def client(timeouts: ClientConfig) -> S3Store:
            return S3Store(
                bucket,
                prefix=prefix or None,
                # JuiceFS' gateway leaves the keys out of its answer to a bulk deletion.
                disable_bulk_delete=True,
                client_options={**timeouts, "allow_http": endpoint.startswith("http://")},
                retry_config=RETRIES,
            )

        self._store = client(TIMEOUTS)
        # The last request of an upload lasts until the server has put the parts together.
        self._uploads = client({**TIMEOUTS, "timeout": "10m"})

    def put(self, folder: Path, key: str, files: Iterable[str] | None = None) -> str:
        name = checked(key) + TREE
        # If the block raises, the writer aborts the upload: nothing becomes visible.
        with (
            _errors(key),
            obstore.open_writer(
                self._uploads, name, buffer_size=PART, max_concurrency=PARTS
            ) as writer,
        ):
            return pack(folder, writer, files)

    def get(self, key: str, folder: Path, digest: str | None = None) -> None:
        name = checked(key) + TREE
        for attempt in range(ATTEMPTS):
            try:
                with _errors(key), _disk_errors(), atomic_folder(folder) as partial:
                    found = unpack(_Reader(self._store, name), partial)
                    _flush(partial)
                    if digest and found != digest:
                        raise StoreDamaged("Its content is another one.")
                return
            except StoreDamaged as error:
                if attempt + 1 == ATTEMPTS:
                    raise StoreDamaged(
                        f"{key} in the store is damaged: {error} Restore the object {name} of "
                        f"{self.url} from a backup, or delete what it belongs to."
                    ) from None
            time.sleep(random.uniform(0.05, 0.3) * (attempt + 1))

    def delete(self, key: str) -> None:
        self._delete(key, TREE)

    def exists(self, key: str) -> bool:
        try:
            with _errors(key):
                obstore.get_range(self._store, checked(key) + TREE, start=0, length=1)
        except TreeNotFound:
            return False
        return True

    def list(self, prefix: str, min_age: float | None = None) -> Sequence[str]:
        return self._list(prefix, TREE, min_age)

    def put_bytes(self, key: str, data: bytes) -> None:
        with _errors(key):
            obstore.put(self._store, checked(key) + SMALL, data, use_multipart=False)

    def get_bytes(self, key: str) -> bytes:
        with _errors(key):
            return bytes(obstore.get(self._store, checked(key) + SMALL).bytes())

    def delete_bytes(self, key: str) -> None:
        self._delete(key, SMALL)

    def list_bytes(self, prefix: str, min_age: float | None = None) -> Sequence[str]:
        return self._list(prefix, SMALL, min_age)

    def check(self) -> None:
        with _errors("the list of objects"):
            next(iter(obstore.list(self._store, "models", chunk_size=1)), None)

    def _delete(self, key: str, end: str) -> None:
        with _errors(key):
            try:
                obstore.delete(self._store, checked(key) + end)
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise

    def _list(self, prefix: str, end: str, min_age: float | None = None) -> Sequence[str]:
        latest = time.time() - (min_age or 0.0)
        with _errors(prefix):
            found = [
                str(item["path"])
                for chunk in obstore.list(self._store, checked(prefix))
                for item in chunk
                if min_age is None or item["last_modified"].timestamp() <= latest
            ]
        return sorted(name.removesuffix(end) for name in found if name.endswith(end))


class _Reader:
    """An object as a `Source`, read in requests of PART bytes."""

    def __init__(self, store: S3Store, name: str) -> None:
        self._store, self._name = store, name
        self._place = 0  # of the next request
        self._size: int | None = None
        self._part = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        found = bytearray()
        while len(found) < size and (self._part or self._fill()):
            taken = self._part[: size - len(found)]
            found += taken
            self._part = self._part[len(taken) :]
        return bytes(found)

    def _fill(self) -> bool:
        """Request the next part; False at the end."""
        if self._size is not None and self._place >= self._size:
            return False
        for attempt in range(ATTEMPTS):
            try:
                found = obstore.get(
                    self._store,
                    self._name,
                    options={"range": (self._place, self._place + PART)},
                )
                data = found.bytes()
            except BaseError as error:  # a body that breaks off is not retried by obstore
                if _refusal(error) or "416" in str(error) or attempt + 1 == ATTEMPTS:
                    raise
                time.sleep(random.uniform(0.1, 0.5) * (attempt + 1))
            else:
                self._size = found.meta["size"]
                self._place += len(data)
                self._part = memoryview(data)
                return bool(self._part)
        raise AssertionError("unreachable")


def _flush(folder: Path) -> None:
    """Write what a folder's file system has in memory to its disk, so that a power cut leaves no
    empty files. One call for all files: an fsync for each takes 10 ms a file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """A context that replaces the errors of obstore by our own; `what` is a key."""
    try:
        yield
    except (BaseError, OSError) as error:
        if not isinstance(error, BaseError) and "Error performing" not in str(error):
            raise  # a file of ours; obstore's writer and reader raise OSErrors, too
        _translate(error, what)


def _translate(error: Exception, what: str) -> NoReturn:
    text = str(error)
    if refusal := _refusal(error):
        log.error("The object store refuses %s: %s", what, text.partition("\n\nDebug")[0])
        raise StoreRefused(
            f"The object store refuses: {refusal}. Check VISIONLOOP_STORE_URL and the variables "
            "AWS_*.",
            RETRY,
        ) from error
    if isinstance(error, FileNotFoundError):
        raise TreeNotFound(f"There is no {what} in the object store.") from None
    if "416" in text:
        raise StoreDamaged("It is empty.") from None
    log.warning("The object store failed at %s: %s", what, text.partition("\n\nDebug")[0])
    raise StoreUnavailable(
        "The object store cannot be reached, or answers with errors. Try again.", RETRY
    ) from error


def _refusal(error: Exception) -> str | None:
    """What is wrong with bucket or credentials, if the store says that something is."""
    text = str(error).partition("\n\nDebug")[0]
    return next((meaning for word, meaning in REFUSALS.items() if word in text), None)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """A context that replaces the errors of a full disk here."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise InsufficientStorage(NO_ROOM) from error
        raise
