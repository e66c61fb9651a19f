"""Uploaded forms."""

from __future__ import annotations

import json
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import BaseModel
from python_multipart.exceptions import ParseError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.middleware.errors import check
from api.schemas import FromUrl, form_schema
from errors import NoFileUploaded, ValidationFailed
from serving.fetch import fetch
from serving.gateway import Gateway

Form = TypeVar("Form", bound=FromUrl)


async def picture_form(
    request: Request, gateway: Gateway, form_of: type[Form], hint: str = ""
) -> tuple[bytes, str, Form]:
    """The picture of a form, its file name, and the form's other fields.

    Raises:
        NoFileUploaded: Neither 'image' nor 'image_url' is there.
        ValidationFailed: Both are, or a field has no legal value.
    """
    if not content_type(request) and not await request.body():
        raise NoFileUploaded("Send the picture as the form's file 'image'.")
    # In memory up to the body limit: spooling to disk from 1 MB on costs more than it saves.
    form = await read_form(request, gateway.settings.max_body_bytes, hint)
    options = check(form_of, fields(form))
    image, name = _uploaded(form)
    if image is not None and options.image_url:
        raise ValidationFailed("Send 'image' or 'image_url', not both.")
    if options.image_url:
        image = await fetch(options.image_url, gateway.settings)
        name = PurePosixPath(urlsplit(options.image_url).path).name
    if image is None:
        raise NoFileUploaded("Send the picture as the form's file 'image'.")
    return image, name, options


def _uploaded(form: FormData) -> tuple[bytes | None, str]:
    """The bytes of the file 'image', and its name.

    Browsers send a nameless empty one where none was chosen.
    """
    images = form.getlist("image")
    if len(images) > 1:
        raise ValidationFailed(f"Send one 'image'; got {len(images)}.")
    if not images or images[0] == "":
        return None, ""
    upload = images[0]
    if not isinstance(upload, UploadFile):
        raise NoFileUploaded("'image' is text, not a file. With curl: -F image=@photo.jpg")
    data, name = upload.file.read(), upload.filename or ""
    return (data if data or name else None), PureWindowsPath(name).name


KEPT_BODY = 256 * 1024  # bytes of a request that a job's `config` holds


Body = TypeVar("Body", bound=BaseModel)


async def json_body(request: Request, model: type[Body], context: Any = None) -> Body:
    """The body as a `model`. Only JSON: a browser sends that to other origins only when allowed.

    Raises:
        ValidationFailed: It is something else, or a field is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ValidationFailed(f"'Content-Type' must be application/json; got {kind!r:.60}.")
    return check(model, await request.body() or b"{}", context)


async def as_sent(request: Request, fields: BaseModel) -> dict[str, Any]:
    """The JSON object of a body that `json_body` accepted, unknown keys included.

    An enormous one is kept as its known fields.
    """
    body = await request.body() or b"{}"
    if len(body) > KEPT_BODY:
        return fields.model_dump()
    return dict(json.loads(body, parse_constant=str))  # NaN is no JSON


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """For the OpenAPI document, of a route that reads its body with `json_body`."""
    content = {"application/json": {"schema": form_schema(model)}}
    return {"requestBody": {"required": True, "content": content}}


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
