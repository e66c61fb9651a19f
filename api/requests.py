"""Reading of request bodies: forms with images or files, and JSON."""

from __future__ import annotations

import json
from functools import partial
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import BaseModel
from python_multipart.exceptions import ParseError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.middleware.errors import check
from api.schemas import MOST_IMAGES, FromFilesOrUrl, FromUrl, RequestFields
from errors import NoFileUploaded, ValidationFailed
from nesting import check_json_values
from serving.fetch import fetch
from serving.gateway import Gateway
from serving.large_bodies import worked_on

JSON_TYPE = "application/json"
MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"

MAX_FIELDS, MAX_FILES = 32, 4  # maximum numbers of fields and of files in a form
MAX_REPEATED_FIELDS = 256  # maximum number of fields in a form whose fields may be repeated
MAX_FIELD = 64 * 1024  # maximum bytes of a field that is not a file
UPLOAD_IN_MEMORY = 1024 * 1024  # bytes above which an uploaded file is kept on disk
MAX_STORED_BODY = 256 * 1024  # maximum bytes of a body that a job's `config` stores unchanged
MOST_VALUES = 25_000  # of a JSON body
FILE_VALUE = "a file"  # value of a field that was sent as a file although it must not be one

Form = TypeVar("Form", bound="FromUrl | FromFilesOrUrl")
Body = TypeVar("Body", bound=BaseModel)


async def image_form(
    request: Request, gateway: Gateway, form_of: type[Form], hint: str = ""
) -> tuple[bytes, str, Form]:
    """Read a form with an image. Returns the image's bytes and file name, and the other fields.

    Raises:
        NoFileUploaded: Neither 'image' nor 'image_url' was sent.
        ValidationFailed: Both were sent, or a field has an invalid value.
    """
    images, options = await images_form(request, gateway, form_of, hint, most=1)
    return *images[0], options


async def images_form(
    request: Request,
    gateway: Gateway,
    form_of: type[Form],
    hint: str = "",
    most: int = MOST_IMAGES,
) -> tuple[list[tuple[bytes, str]], Form]:
    """Read a form with one to `most` images.

    Returns:
        The images' bytes and file names in the order of the form, and the other fields.

    Raises:
        NoFileUploaded: Neither 'image' nor 'image_url' was sent.
        ValidationFailed: Both were sent, too many were, or a field has an invalid value.
    """
    if not content_type(request) and not await request.body():
        raise NoFileUploaded("Send the image as a file in the form field 'image'.")
    # In memory up to the body limit: writing files above 1 MB to disk costs more than it saves.
    form = await read_form(request, gateway.settings.max_body_bytes, hint, most)
    try:
        options = check(form_of, _with_lists(form_of, form))
        images = _uploaded_images(form, most)
        if (urls := len(form.getlist("image_url"))) > 1:
            several = " Send several images as files in 'image'." if most > 1 else ""
            raise ValidationFailed(f"Send one 'image_url'; got {urls}.{several}")
    finally:
        await form.close()
    if images and options.image_url:
        raise ValidationFailed("Send 'image' or 'image_url', not both.")
    if options.image_url:
        image = await fetch(options.image_url, gateway.settings)  # which checks the address
        images = [(image, PurePosixPath(urlsplit(options.image_url).path).name)]
    if not images:
        raise NoFileUploaded("Send the image as a file in the form field 'image'.")
    return images, options


def _with_lists(form_of: type[RequestFields], form: FormData) -> dict[str, Any]:
    """The fields of a form; those that the model has as lists, with all their values.

    Files of a list are left out: they are read as such, and have no value.
    """
    values: dict[str, Any] = dict(fields(form))
    for name, field in form_of.model_fields.items():
        if name in values and get_origin((get_args(field.annotation) or (None,))[0]) is list:
            texts = [one for one in form.getlist(name) if isinstance(one, str) and one != ""]
            values[name] = texts or None
    return values


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


async def read_form(request: Request, in_memory: int, hint: str = "", images: int = 1) -> FormData:
    """The form of a request. Files above `in_memory` bytes are kept on disk.

    `images` is the number of images that it may have; with several, fields may be repeated, too.

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
        max_files=MAX_FILES + images - 1,
        max_fields=MAX_FIELDS if images == 1 else MAX_REPEATED_FIELDS,
        max_part_size=MAX_FIELD,
    )
    parser.spool_max_size = in_memory
    try:
        return await parser.parse()
    except MultiPartException as error:
        if images > 1 and error.message.startswith("Too many files"):
            raise ValidationFailed(_too_many(images)) from None
        raise ValidationFailed(f"The form cannot be read: {error.message}") from None
    except (ParseError, UnicodeError, KeyError):
        raise ValidationFailed(
            "The form cannot be read: its parts are damaged. Let the client encode it; with curl: "
            "-F name=value"
        ) from None


def fields(form: FormData, *files: str) -> dict[str, str]:
    """The fields of a form except those in `files`; the value of any other file is FILE_VALUE."""
    return {
        name: value if isinstance(value, str) else FILE_VALUE
        for name, value in form.items()
        if name not in files
    }


def _uploaded_images(form: FormData, most: int) -> list[tuple[bytes, str]]:
    """The bytes and names of the files 'image', at most `most`."""
    uploads = form.getlist("image")
    if len(uploads) > most:
        got = f"got {len(uploads)}"
        raise ValidationFailed(
            f"Send one 'image'; {got}." if most == 1 else f"{_too_many(most)[:-1]}; {got}."
        )
    images = []
    for upload in uploads:
        if upload == "":
            continue
        if not isinstance(upload, UploadFile):
            raise NoFileUploaded(
                "'image' is text, not a file. Send it as a file; with curl: -F image=@photo.jpg"
            )
        data, name = upload.file.read(), upload.filename or ""
        if data or name:  # if no file was chosen, a browser sends an empty one without a name
            images.append((data, PureWindowsPath(name).name))
    return images


def _too_many(most: int) -> str:
    return f"One request takes at most {most} images: send the others in another one."
