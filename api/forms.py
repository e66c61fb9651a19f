"""Uploaded forms."""

from __future__ import annotations

from fastapi import Request
from python_multipart.exceptions import ParseError
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser

from errors import ValidationFailed

FIELDS, FILES = 32, 4  # parts of a form
LONGEST_FIELD = 64 * 1024

MULTIPART = "multipart/form-data"
FILE = "a file"  # in place of a file where none is expected
URLENCODED = "application/x-www-form-urlencoded"


def content_type(request: Request) -> str:
    """The media type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, in_memory: int, hint: str = "") -> FormData:
    """The form. Files above `in_memory` bytes are kept on disk.

    Raises:
        ValidationFailed: the body is no form, is damaged, or has too many or too long parts.
    """
    kind = content_type(request)
    if kind == URLENCODED:
        return await request.form(max_fields=FIELDS)
    if kind != MULTIPART:
        raise ValidationFailed(f"'Content-Type' must be {MULTIPART}; got {kind!r:.60}.{hint}")
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=FILES,
        max_fields=FIELDS,
        max_part_size=LONGEST_FIELD,
    )
    parser.spool_max_size = in_memory
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise ValidationFailed(f"The form cannot be read: {error.message}") from None
    except (ParseError, UnicodeError, KeyError):
        raise ValidationFailed("The form cannot be read: its parts are damaged.") from None


def fields(form: FormData, *files: str) -> dict[str, str]:
    """The form's values, without `files`, its parts that are files: of others the names alone."""
    return {
        name: value if isinstance(value, str) else FILE
        for name, value in form.items()
        if name not in files
    }
