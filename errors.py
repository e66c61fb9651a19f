"""Errors that a client can receive: each class has one error code and one HTTP status.

They are picklable exceptions, so that a runner process can return one for a single item of a
batch. The client sees the message: it says what was received, what is allowed and what to do, and
reveals no internals.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from request_id import REQUEST_ID

log = logging.getLogger("visionloop")

_hidden: dict[str, str] = {}  # absolute path of a folder of the server → what clients read instead


class VisionLoopError(Exception):
    """An internal error, unless a subclass says otherwise."""

    code: ClassVar[str] = "PROCESSING_ERROR"
    status: ClassVar[int] = 500

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        message = sendable(message)
        super().__init__(message, retry_after)
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> dict[str, Any]:
        """The body of the error response."""
        return error_body(self.status, self.code, self.message)


def our_fault(error: BaseException | None, what: str) -> VisionLoopError:
    """An internal error: the log gets the traceback, the client an id that finds it there.

    The id is the request's, outside of requests a new one.

    Args:
        what: The operation that failed, for the log.
    """
    number = REQUEST_ID.get() or secrets.token_hex(4)
    log.error("[%s] %s failed", number, what, exc_info=error)
    return VisionLoopError(
        f"Internal error. The server's log has the details under the id {number}."
    )


def hide_paths(folders: Mapping[Path, str]) -> None:
    """Have `without_server_paths` replace these folders by their names, in this process.

    Short paths, such as `/data`, are also names that clients use; they are not replaced.
    """
    _hidden.update({str(path): name for path, name in folders.items() if len(path.parts) > 2})


def without_server_paths(text: str) -> str:
    """The text with the server's own folders replaced by their names."""
    if not _hidden or "/" not in text:
        return text
    longest_first = sorted(_hidden, key=len, reverse=True)
    folders = "|".join(map(re.escape, longest_first))
    pattern = rf"(?<![\w./-])({folders})(?![\w.-])"
    return re.sub(pattern, lambda found: _hidden[found[1]], text)


def sendable(text: str) -> str:
    """The text with lone surrogates escaped: JSON may contain them, UTF-8 cannot encode them."""
    return text.encode("utf-8", "backslashreplace").decode()


def error_body(status: int, code: str, message: str) -> dict[str, str]:
    """The JSON body of an error; `detail` repeats `message` for clients that expect that name.

    Within a request it has the request's id.
    """
    message = without_server_paths(sendable(message))
    body = {
        "error": HTTPStatus(status).phrase,
        "code": code,
        "message": message,
        "detail": message,
    }
    if request_id := REQUEST_ID.get():
        body["request_id"] = request_id
    return body


class ValidationFailed(VisionLoopError):
    """A field is missing, unknown, of the wrong type or out of range; the message names it."""

    code, status = "VALIDATION_ERROR", 400


class NoFileUploaded(VisionLoopError):
    """The request contains no image or file."""

    code, status = "NO_FILE_UPLOADED", 400


class InvalidImage(VisionLoopError):
    """The bytes cannot be fully decoded as an image, or the base64 text is invalid."""

    code, status = "INVALID_IMAGE_FORMAT", 400


class DatasetInvalid(VisionLoopError):
    """A data.yaml, its folders or its labels are invalid; the message says what and where."""

    code, status = "DATASET_INVALID", 400


class InvalidModelFile(VisionLoopError):
    """A model file is rejected: truncated, a Git LFS pointer, unsupported or an unsafe pickle."""

    code, status = "INVALID_MODEL_FILE", 400


class Unauthorized(VisionLoopError):
    """The token is missing or unknown."""

    code, status = "UNAUTHORIZED", 401


class Forbidden(VisionLoopError):
    """The token lacks the permission, or a path, address or browser origin is not allowed."""

    code, status = "FORBIDDEN", 403


class NotFound(VisionLoopError):
    """Nothing exists at this path."""

    code, status = "NOT_FOUND", 404


class ModelNotFound(NotFound):
    """The model does not exist; the message lists the known ones."""

    code = "MODEL_NOT_FOUND"


class JobNotFound(NotFound):
    """The job does not exist."""

    code = "JOB_NOT_FOUND"


class DatasetNotFound(NotFound):
    """The dataset does not exist."""

    code = "DATASET_NOT_FOUND"


class MethodNotAllowed(VisionLoopError):
    """The path does not support this method; the `Allow` header lists those it supports."""

    code, status = "METHOD_NOT_ALLOWED", 405


class RequestTimeout(VisionLoopError):
    """The headers did not arrive in time, or the body paused for too long."""

    code, status = "REQUEST_TIMEOUT", 408


class Conflict(VisionLoopError):
    """The current state does not allow it: cancelling a finished job, deleting a model in use."""

    code, status = "CONFLICT", 409


class ConfirmationRequired(Conflict):
    """A correction would remove most annotations and must be confirmed; `removes` counts them."""

    code = "CONFIRMATION_REQUIRED"

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        removes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, retry_after)
        self.removes = dict(removes or {})

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "removes": self.removes}


class DraftConflict(Conflict):
    """Images of drafts were annotated by others meanwhile; `conflicts` lists them."""

    code = "DRAFT_CONFLICT"

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        conflicts: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message, retry_after)
        self.conflicts = [dict(one) for one in conflicts]

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "conflicts": self.conflicts}


class PreconditionFailed(VisionLoopError):
    """What the client replaces has changed since it read it; `current` says who changed it."""

    code, status = "PRECONDITION_FAILED", 412

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        current: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, retry_after)
        self.current = dict(current) if current is not None else None

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "current": self.current}


class PreconditionRequired(VisionLoopError):
    """The request does not say which version it replaces: `If-Match` or `If-None-Match: *`."""

    code, status = "PRECONDITION_REQUIRED", 428


class PayloadTooLarge(VisionLoopError):
    """The body or the image exceeds its limit; pixels are checked before decoding."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class RateLimited(VisionLoopError):
    """The client sent too many requests, or opened too many connections; see `Retry-After`."""

    code, status = "RATE_LIMITED", 429


class HeadersTooLarge(VisionLoopError):
    """The request line and the headers together exceed their limit."""

    code, status = "HEADERS_TOO_LARGE", 431


class BackendUnavailable(VisionLoopError):
    """The service is overloaded or starting; `Retry-After` says when to retry."""

    code, status = "BACKEND_UNAVAILABLE", 503

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        missing: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """`missing`: what the service lacks to be ready, for `/readyz`."""
        super().__init__(message, retry_after)
        self.missing = [dict(one) for one in missing]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | ({"missing": self.missing} if self.missing else {})


class ModelDamaged(VisionLoopError):
    """The files of a model are damaged and cannot be rebuilt; the message says what to do."""

    code, status = "MODEL_DAMAGED", 503


class EngineUnavailable(VisionLoopError):
    """The engine that VISIONLOOP_ENGINE forces cannot serve the model; the message says why."""

    code, status = "ENGINE_UNAVAILABLE", 503


class DatabaseDamaged(VisionLoopError):
    """The database file is damaged and must be restored from a backup."""

    code, status = "DATABASE_DAMAGED", 503


class DatabaseBusy(BackendUnavailable):
    """The database is locked by another process or cannot be reached; `Retry-After` says when to
    retry."""

    code = "DATABASE_BUSY"


class StoreUnavailable(BackendUnavailable):
    """The object store cannot be reached or answers with errors; `Retry-After` says when to
    retry."""

    code = "STORE_UNAVAILABLE"


class StoreRefused(BackendUnavailable):
    """The object store refuses: its bucket is missing, or the server's credentials are wrong."""

    code = "STORE_REFUSED"


class StoreDamaged(VisionLoopError):
    """What the object store has is not what was stored; the message says what to do."""

    code, status = "STORE_DAMAGED", 503


class InsufficientStorage(VisionLoopError):
    """The disk is full, or would have less room than VISIONLOOP_DISK_RESERVE; inference goes on."""

    code, status = "INSUFFICIENT_STORAGE", 507


class BackendTimeout(VisionLoopError):
    """The response took longer than the time limit."""

    code, status = "BACKEND_TIMEOUT", 504
