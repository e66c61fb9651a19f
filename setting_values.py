"""Types of the settings' values: what a variable may hold, and the form in which it is kept."""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

SHORTEST_SECRET = 16  # characters
LONGEST_ADDRESS = 2000  # characters

ROOT_PATH = r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]{1,100}){1,10}"
"""Pattern of a prefix: no character in it is ever escaped in a URL."""

OWN_PATHS = frozenset(
    ("annotate", "api", "audit", "console", "docs", "events", "health", "healthz", "infer", "jobs",
     "label-studio", "livez", "metrics", "models", "openapi.json", "predict", "readyz", "redoc",
     "schema.json", "session", "static", "stats", "tasks", "tokens", "train", "v1", "webhooks")
)  # fmt: skip
"""First parts of the service's own paths, which no prefix may begin with."""

YES, NO = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")
"""What pydantic takes for true and false."""

STORE_URL = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
    r"(/(?P<prefix>[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,3}))?"
)

DRIVERS = ("sqlite+pysqlite", "postgresql+psycopg")
"""The databases and drivers that the tests run on."""


def without_credentials(address: str) -> str:
    """A web address without user name, password and query, any of which may be a credential."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}{'?…' if parts.query else ''}"


def split_store_url(url: str) -> tuple[str, str]:
    """Bucket and prefix of VISIONLOOP_STORE_URL; the prefix may be empty.

    Raises:
        PydanticCustomError: It is none; a `ValueError`.
    """
    found = STORE_URL.fullmatch(url.rstrip("/"))
    if found is None:
        raise PydanticCustomError(
            "store_url",
            "This is not a place in S3; write s3://BUCKET or s3://BUCKET/PREFIX, without "
            "credentials: those are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    return found["bucket"], found["prefix"] or ""


def web_address(example: str) -> AfterValidator:
    """The check of an address of HTTP, without credentials and query.

    Args:
        example: Named in the error.
    """

    def check(value: str | None) -> str | None:
        address = re.fullmatch(r"https?://[^/\s?#@]+?(:\d{1,5})?(/[^\s?#@]*)?", value or "")
        port = int((address[1] or ":80")[1:]) if address else 0
        if value and not 0 < port < 2**16:
            raise PydanticCustomError(
                "web_address", "This is not an address like {example}", {"example": example}
            )
        return value.rstrip("/") if value else None

    return AfterValidator(check)


def _split_words(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _split_folders(value: object) -> object:
    if isinstance(value, str):
        parts = re.split(f"[,{os.pathsep}]", value)
        return tuple(_expanded(Path(part.strip())) for part in parts if part.strip())
    return value


def _expanded(path: Path) -> Path:
    """The absolute path, with `~` expanded."""
    try:
        return path.expanduser().resolve()
    except RuntimeError:  # no HOME and no account, or the account of `~name` does not exist
        raise PydanticCustomError(
            "home",
            "The home folder of {path} is unknown; give the full path of a folder",
            {"path": str(path)},
        ) from None


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """As browsers send them: in lower case, without a path."""
    for origin in value:
        if origin != "*" and not re.fullmatch(r"[a-zA-Z][\w+.-]*://[^/\s?#@]+/?", origin):
            raise PydanticCustomError(
                "cors_origins",
                "{origin} is not an origin; write https://labels.example, without a path",
                {"origin": repr(origin[:100])},
            )
    return tuple(origin.lower().rstrip("/") for origin in value)


def _host_names(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if host != "*" and not re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*\.?", host):
            raise PydanticCustomError(
                "hosts",
                "{host} is not a host name; write labels.example, without scheme and port",
                {"host": repr(host[:100])},
            )
    return tuple(host.lower().rstrip(".") for host in value)


def _root_path(value: str) -> str:
    path = value.strip().rstrip("/")
    if path and not re.fullmatch(ROOT_PATH, path):
        raise PydanticCustomError(
            "root_path",
            "{path} is not a path; write /vision, with letters, digits and . _ ~ - only",
            {"path": repr(value[:100])},
        )
    first = path.split("/")[1] if path else ""
    if first in OWN_PATHS:
        raise PydanticCustomError(
            "root_path",
            "/{first} is the service's own: a request to it could mean either; write another "
            "path, such as /vision",
            {"first": first},
        )
    return path


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    networks = []
    for proxy in value:
        try:
            network = str(ip_network(proxy, strict=False))
            networks.append(network if "/" in proxy else proxy)  # uvicorn takes no host bits
        except ValueError:
            raise PydanticCustomError(
                "trusted_proxies",
                "{proxy} is not an IP address or network; write 127.0.0.1 or 10.0.0.0/8",
                {"proxy": repr(proxy[:100])},
            ) from None
    return tuple(networks)


def _webhook_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    for number, address in enumerate(value, 1):
        if not _is_webhook_address(address):  # not repeated: it may contain a password
            raise PydanticCustomError(
                "webhook_url",
                "Address {number} is not like https://hooks.example/visionloop (http or "
                "https, a host, no fragment, no spaces)",
                {"number": number},
            )
    return tuple(dict.fromkeys(value))


def _is_webhook_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # a port that is no number, or unbalanced brackets
        return False
    plain = text.isascii() and text.isprintable() and not re.search(r"[\s#\\]", text)
    known = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and port != 0
    return plain and known and len(text) <= LONGEST_ADDRESS


def _without_line_end(value: SecretStr | None) -> SecretStr | None:
    """The secret without white space around it, such as the line end of a file it came from."""
    given = value.get_secret_value() if value else ""
    if given and not given.strip():
        raise PydanticCustomError("blank_secret", "It is blank: write a secret, or unset it")
    return SecretStr(given.strip()) if given else value


def _long_enough(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value.get_secret_value()) < SHORTEST_SECRET:
        raise PydanticCustomError(
            "webhook_secret",
            "The secret needs at least {least} characters; write the output of "
            "`openssl rand -hex 32`",
            {"least": SHORTEST_SECRET},
        )
    return value


def _database_url(value: str | None) -> str | None:
    if value and (fault := _database_fault(value)):
        raise PydanticCustomError("database_url", "{fault}", {"fault": fault})
    return value


def _database_fault(text: str) -> str | None:
    """The reason why a database URL is invalid, without its password; None if it is valid."""
    from sqlalchemy.engine import make_url  # slow to import
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    example = "write postgresql+psycopg://USER:PASSWORD@HOST/NAME or sqlite:////PATH"
    try:
        url = make_url(text)
        if f"{url.get_backend_name()}+{url.get_driver_name()}" not in DRIVERS:
            return f"This kind of database or driver is not supported; {example}"
        return _sqlite_fault(url) if url.get_backend_name() == "sqlite" else None
    except (ArgumentError, NoSuchModuleError, ValueError):
        return f"This is not a database URL; {example}"


def _sqlite_fault(url: URL) -> str | None:
    """The reason why a URL of SQLite names no file that all processes share.

    Raises:
        ValueError: Its option `uri` is neither true nor false.
    """
    from sqlalchemy.util import asbool

    name = url.database or ""
    place = unquote(name.removeprefix("file:")) if name.startswith("file:") else name
    wanted = url.normalized_query
    in_memory = "memory" in wanted.get("mode", ()) or "memdb" in wanted.get("vfs", ())
    if in_memory or place in ("", ":memory:"):
        return (
            "A database in memory is not shared: each process of VisionLoop would have an empty "
            "one. Write sqlite:////PATH, or unset it for a file in VISIONLOOP_HOME"
        )
    if not place.startswith("/"):
        return "SQLite needs the full path of its file; write sqlite:////PATH"
    if name != place and not any(map(asbool, wanted.get("uri", ()))):
        return "A file: URL needs uri=true, or it is the name of a file; write sqlite:////PATH"
    return None


def _store_url(value: str | None) -> str | None:
    if value:
        split_store_url(value)
    return value.rstrip("/") if value else None


def _former_switch(value: object) -> object:
    """The switch of former versions: true meant that a training fails without the weights."""
    if isinstance(value, bool):
        return "always" if value else "never"
    text = str(value).strip().lower()
    return {**dict.fromkeys(YES, "always"), **dict.fromkeys(NO, "never")}.get(text, text)


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_words)]
Origins = Annotated[Words, AfterValidator(_origins)]
HostNames = Annotated[Words, AfterValidator(_host_names)]
Networks = Annotated[Words, AfterValidator(_networks)]
WebhookAddresses = Annotated[Words, AfterValidator(_webhook_addresses)]

Folder = Annotated[Path, AfterValidator(_expanded)]
OptionalFolder = Annotated[
    Path | None, AfterValidator(lambda path: _expanded(path) if path else None)
]
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split_folders)]

RootPath = Annotated[str, AfterValidator(_root_path)]
DatabaseUrl = Annotated[str | None, AfterValidator(_database_url)]
StoreUrl = Annotated[str | None, AfterValidator(_store_url)]
Secret = Annotated[SecretStr | None, AfterValidator(_without_line_end)]
LongSecret = Annotated[Secret, AfterValidator(_long_enough)]

Download = Annotated[Literal["auto", "always", "never"], BeforeValidator(_former_switch)]
