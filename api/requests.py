"""Reading of request bodies: forms with images or files, and JSON."""

from __future__ import annotations

import json
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import BaseModel
from python_multipart.exceptions import ParseError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.middleware.errors import check
from api.schemas import FromUrl
from errors import NoFileUploaded, ValidationFailed
from nesting import check_json_values
from serving.fetch import fetch
from serving.gateway import Gateway
from serving.large_bodies import worked_on

JSON_TYPE = "application/json"
MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"

MAX_FIELDS, MAX_FILES = 32, 4  # maximum numbers of fields and of files in a form
MAX_FIELD = 64 * 1024  # maximum bytes of a field that is not a file
UPLOAD_IN_MEMORY = 1024 * 1024  # bytes above which an uploaded file is kept on disk
MAX_STORED_BODY = 256 * 1024  # maximum bytes of a body that a job's `config` stores unchanged
MOST_VALUES = 25_000  # of a JSON body
FILE_VALUE = "a file"  # value of a field that was sent as a file although it must not be one

Form = TypeVar("Form", bound=FromUrl)
Body = TypeVar("Body", bound=BaseModel)


async def image_form(
    request: Request, gateway: Gateway, form_of: type[Form], hint: str = ""
) -> tuple[bytes, str, Form]:
    """Read a form with an image. Returns the image's bytes and file name, and the other fields.

    Raises:
        NoFileUploaded: Neither 'image' nor 'image_url' was sent.
        ValidationFailed: Both were sent, or a field has an invalid value.
    """
    if not content_type(request) and not await request.body():
        raise NoFileUploaded("Send the image as a file in the form field 'image'.")
    # In memory up to the body limit: writing files above 1 MB to disk costs more than it saves.
    form = await read_form(request, gateway.settings.max_body_bytes, hint)
    try:
        options = check(form_of, fields(form))
        image, name = _uploaded_image(form)
    finally:
        await form.close()
    if image is not None and options.image_url:
        raise ValidationFailed("Send 'image' or 'image_url', not both.")
    if options.image_url:
        image = await fetch(options.image_url, gateway.settings)
        name = PurePosixPath(urlsplit(options.image_url).path).name
    if image is None:
        raise NoFileUploaded("Send the image as a file in the form field 'image'.")
    return image, name, options


async def json_body(
    request: Request, model: type[Body], context: Any = None, most: int = MOST_VALUES
) -> Body:
    """The JSON body as a `model`, of `most` values; `context` is passed to its validators.

    No other content type is accepted: a browser sends JSON to another origin only after a preflight
    request, but sends forms to any origin.

    Raises:
        ValidationFailed: The body is not JSON, a field has an invalid value, or a field is unknown
            and the model does not ignore it.
    """
    kind = content_type(request)
    if kind != JSON_TYPE:
        raise ValidationFailed(f"'Content-Type' must be {JSON_TYPE}; got {kind!r:.60}.")
    body = await request.body() or b"{}"
    check_json_values(body, most, "The body")
    return await worked_on(len(body), partial(check, model, body, context))


async def as_sent(request: Request, fields: BaseModel) -> dict[str, Any]:
    """The JSON object of a body that `json_body` accepted, including keys that the model ignores.

    If the body is larger than MAX_STORED_BODY, only the fields of the model are returned.
    """
    body = await request.body() or b"{}"
    if len(body) > MAX_STORED_BODY:
        return fields.model_dump()
    return dict(json.loads(body, parse_constant=str))  # NaN cannot be stored as JSON


def content_type(request: Request) -> str:
    """The media type of the body in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, in_memory: int, hint: str = "") -> FormData:
    """The form of a request. Files above `in_memory` bytes are kept on disk.

    Raises:
        ValidationFailed: The body is not a form, is damaged, or has too many or too long parts. If
            it is not a form, `hint` is appended to the message.
    """
    kind = content_type(request)
    if kind == URLENCODED:
        return await request.form(max_fields=MAX_FIELDS)
    if kind != MULTIPART:
        raise ValidationFailed(f"'Content-Type' must be {MULTIPART}; got {kind!r:.60}.{hint}")
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=MAX_FILES,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD,
    )
    parser.spool_max_size = in_memory
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise ValidationFailed(f"The form cannot be read: {error.message}") from None
    except (ParseError, UnicodeError, KeyError):
        raise ValidationFailed("The form cannot be read: its parts are damaged.") from None


def fields(form: FormData, *files: str) -> dict[str, str]:
    """The fields of a form except those in `files`; the value of any other file is FILE_VALUE."""
    return {
        name: value if isinstance(value, str) else FILE_VALUE
        for name, value in form.items()
        if name not in files
    }


def _uploaded_image(form: FormData) -> tuple[bytes | None, str]:
    """The bytes of the file 'image' (None if there is none), and its name."""
    images = form.getlist("image")
    if len(images) > 1:
        raise ValidationFailed(f"Send one 'image'; got {len(images)}.")
    if not images or images[0] == "":
        return None, ""
    upload = images[0]
    if not isinstance(upload, UploadFile):
        raise NoFileUploaded(
            "'image' is text, not a file. Send it as a file; with curl: -F image=@photo.jpg"
        )
    data, name = upload.file.read(), upload.filename or ""
    # If no file was chosen, a browser sends an empty file without a name.
    return (data if data or name else None), PureWindowsPath(name).name
