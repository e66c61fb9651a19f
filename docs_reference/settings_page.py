"""The settings: names, types, choices and defaults."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo

from docs_reference.markdown import code, table
from settings import Settings

HEAD = """# Settings

VisionLoop is configured by environment variables. They are read once, at the start, and printed
there; secrets are masked. An empty variable counts as unset. A value that cannot be used stops
the start with a message that names the variable. Lists are comma-separated.

BentoML's own variables apply too: `BENTOML_HOME` is the folder of the models, `BENTOML_HOST` and
`BENTOML_PORT` are where the service listens. [Secure it](../how-to/secure-it.md) says what to set
before the service is reached by others.

"""

TAIL = """
`VISIONLOOP_DATABASE_URL` names SQLite or PostgreSQL; its driver psycopg is among the requirements.
The tests run on SQLite and on PostgreSQL 15. One server uses one pair of folders; a second one on
them is refused. Several servers share a PostgreSQL database if all of them have the same
`VISIONLOOP_STORE_URL`; without it, a second server on the database is refused.
"""

WORDS = {
    str: "text", int: "whole number", float: "number", Path: "path", SecretStr: "secret text",
    ByteSize: "bytes, or a number with `MiB`, `GiB` or the like",
}  # fmt: skip
SIGNS = ((Gt, "gt", "above"), (Ge, "ge", "at least"), (Lt, "lt", "below"), (Le, "le", "at most"))


def settings_page() -> str:
    """Every field of `Settings`, in its order."""
    rows = [
        (code(f"VISIONLOOP_{name.upper()}"), kind(field), default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return HEAD + table(("variable", "type and choices", "default", "meaning"), rows) + TAIL


def kind(field: FieldInfo) -> str:
    """The type of a setting, and its allowed values."""
    bounds = [
        f"{word} {getattr(bound, side):g}"
        for bound in field.metadata
        for sort, side, word in SIGNS
        if isinstance(bound, sort)
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    arguments = [one for one in get_args(annotation) if one is not type(None)]
    if annotation is bool:
        return "`true` or `false`"
    if origin is Literal:
        return " · ".join(code(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_type, arguments))
    if origin is tuple:
        between = {Path: "paths, separated by `:` or commas", str: "texts, separated by commas"}
        return between[arguments[0]]
    return WORDS[annotation]


def default(field: FieldInfo) -> str:
    """The value if the variable is not set."""
    value = field.default
    if value is None or value == ():
        return "unset"
    if isinstance(value, ByteSize):
        return code(value.human_readable())
    if isinstance(value, bool):
        return code(str(value).lower())
    return code(f"{value:g}" if isinstance(value, float) else value)
