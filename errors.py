"""The errors a client can meet: each has one code and one HTTP status.

They are plain picklable exceptions, so a runner process can return one for a single item of
a batch. The message is shown to the client: say what was got, what is allowed, what to do,
and nothing about our insides.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

log = logging.getLogger("visionloop")


class VisionLoopError(Exception):
    """Our own fault, unless a subclass says otherwise."""

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
        """The body every error answer has."""
        return error_body(self.status, self.code, self.message)


def our_fault(error: BaseException | None, what: str) -> VisionLoopError:
    """A message without internals, and its id beside the traceback in the log."""
    number = secrets.token_hex(4)
    log.error("[%s] %s failed", number, what, exc_info=error)
    return VisionLoopError(
        f"Something went wrong on our side. The log has it under the id {number}."
    )


def sendable(text: str) -> str:
    """A text that can be encoded: half surrogate pairs, as JSON may hold, are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def error_body(status: int, code: str, message: str) -> dict[str, str]:
    message = sendable(message)
    return {
        "error": HTTPStatus(status).phrase,
        "code": code,
        "message": message,
        "detail": message,
    }


class ValidationFailed(VisionLoopError):
    """A field is missing, unknown, of the wrong type or out of range; the message names it."""

    code, status = "VALIDATION_ERROR", 400


class NoFileUploaded(VisionLoopError):
    """The request has no image or file."""

    code, status = "NO_FILE_UPLOADED", 400


class InvalidImage(VisionLoopError):
    """The bytes are no image that can be decoded as a whole; bad base64 too."""

    code, status = "INVALID_IMAGE_FORMAT", 400


class DatasetInvalid(VisionLoopError):
    """A data.yaml, its folders or its labels are wrong; the message says what and where."""

    code, status = "DATASET_INVALID", 400


class InvalidModelFile(VisionLoopError):
    """Weights are refused: truncated, a Git LFS pointer, unsupported or an unsafe pickle."""

    code, status = "INVALID_MODEL_FILE", 400


class Unauthorized(VisionLoopError):
    """The token is missing, or is not known."""

    code, status = "UNAUTHORIZED", 401


class Forbidden(VisionLoopError):
    """The token lacks the right, or a path, address or browser origin is not allowed."""

    code, status = "FORBIDDEN", 403


class NotFound(VisionLoopError):
    """There is nothing under this path."""

    code, status = "NOT_FOUND", 404


class ModelNotFound(NotFound):
    """There is no such model; the message lists those that are known."""

    code = "MODEL_NOT_FOUND"


class JobNotFound(NotFound):
    """There is no such job."""

    code = "JOB_NOT_FOUND"


class DatasetNotFound(NotFound):
    """There is no such dataset."""

    code = "DATASET_NOT_FOUND"


class MethodNotAllowed(VisionLoopError):
    """The path does not take this method; `Allow` lists those that it takes."""

    code, status = "METHOD_NOT_ALLOWED", 405


class Conflict(VisionLoopError):
    """The state forbids it: a finished job is cancelled, a model in use is deleted."""

    code, status = "CONFLICT", 409


class ConfirmationRequired(Conflict):
    """A correction that would remove most of what is there; `removes` has the counts."""

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


class PayloadTooLarge(VisionLoopError):
    """The body or the image is above the limit; pixels are counted before decoding."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class RateLimited(VisionLoopError):
    """One client sent too many requests; `Retry-After` says when to try again."""

    code, status = "RATE_LIMITED", 429


class BackendUnavailable(VisionLoopError):
    """The service is overloaded or starting; `Retry-After` says when to try again."""

    code, status = "BACKEND_UNAVAILABLE", 503


class BackendTimeout(VisionLoopError):
    """The answer took longer than the limit allows."""

    code, status = "BACKEND_TIMEOUT", 504
