"""The settings, read from environment variables named `VISIONLOOP_*`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from field_names import meant
from home_paths import HomePaths

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

Folders = Annotated[tuple[Path, ...], NoDecode]
Words = Annotated[tuple[str, ...], NoDecode]

Figure = Literal[
    "accuracy", "accuracy_top5", "precision", "recall", "f1_score", "mAP50", "mAP50_95",
    "mask_mAP50", "mask_mAP50_95", "pose_mAP50", "pose_mAP50_95",
]  # fmt: skip

Engine = Literal["auto", "onnxruntime", "openvino", "int8", "torch", "tensorrt"]

PREFIX = "VISIONLOOP_"
SHORTEST_SECRET = 16  # characters
LONGEST_ADDRESS = 2000  # characters
OTHER_VARIABLES = frozenset(
    {"VISIONLOOP_CLAIM", "VISIONLOOP_JOB", "VISIONLOOP_PYTHON", "VISIONLOOP_URL"}
)
"""Variables with our prefix that are not settings.

VISIONLOOP_JOB and VISIONLOOP_CLAIM are set for a job's process; the others are read by shell
commands.
"""

ROOT_PATH = r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]{1,100}){1,10}"
"""Pattern of a prefix: no character in it is ever escaped in a URL."""

OWN_PATHS = frozenset(
    ("annotate", "api", "audit", "console", "docs", "events", "health", "healthz", "infer", "jobs",
     "label-studio", "livez", "metrics", "models", "openapi.json", "predict", "readyz", "redoc",
     "schema.json", "session", "static", "stats", "tasks", "tokens", "train", "v1", "webhooks")
)  # fmt: skip
"""First parts of the service's own paths, which no prefix may begin with."""

KUBERNETES = re.compile(r"VISIONLOOP_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)")
"""Variables that Kubernetes sets in containers, if their namespace has a service `visionloop`."""

YES, NO = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")
"""What pydantic takes for true and false."""

STORE_URL = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
    r"(/(?P<prefix>[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,3}))?"
)

ADDRESSES = {
    "label_studio_url": "http://labels.example:8080",
    "cluster_url": "http://ray-head:8265",
    "download_url": "https://mirror.example/weights, without user name and query",
}

DRIVERS = ("sqlite+pysqlite", "postgresql+psycopg")
"""The databases and drivers that the tests run on."""


class Settings(BaseSettings):
    """Typed settings with their defaults; docs/reference/settings.md lists them.

    Lists are comma-separated in the environment; between folders, `:` separates as well. An invalid
    value prevents the start, with a message that names the setting, and so does a variable whose
    name is nearly that of a setting.
    """

    model_config = SettingsConfigDict(
        env_prefix="VISIONLOOP_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(Path("~/.visionloop"), description="Folder of database, jobs and datasets")
    database_url: str | None = Field(
        None,
        description="URL of a PostgreSQL database, postgresql+psycopg://USER:PASSWORD@HOST/NAME, "
        "or of a SQLite file; default: SQLite in VISIONLOOP_HOME",
    )
    store_url: str | None = Field(
        None,
        description="Place in S3 of what several machines share, such as `s3://BUCKET/PREFIX`; "
        "default: folders on this machine. The usual variables `AWS_*` have the credentials, "
        "region and endpoint",
    )
    disk_reserve: ByteSize = Field(
        ByteSize(2**30),
        ge=0,
        description="Space kept free on the disk of VISIONLOOP_HOME, such as 500MiB; uploads, "
        "imports, exports and new jobs that would leave less are refused with 507. 0: no space is "
        "kept free",
    )
    data_roots: Folders = Field(
        (),
        description="Folders inside which the paths in requests may lie, besides "
        "VISIONLOOP_HOME/datasets",
    )

    token: SecretStr | None = Field(
        None,
        description="Token that requests must send; unset: no token is needed until a named token "
        "is created",
    )
    admin_token: SecretStr | None = Field(
        None,
        description="Token for training, import, activation and deletion; unset: `token` is enough",
    )
    audit_days: int = Field(
        365,
        ge=0,
        le=36_500,
        description="Days for which entries of the audit trail are kept; 0: for ever",
    )
    cors_origins: Words = Field(
        (), description="Origins of web pages that may call this server (CORS); `*`: all"
    )
    hosts: Words = Field(
        (),
        description="Host names of this server that requests may use, such as `labels.example` or "
        "`*.lab.example`; `*`: all. They are checked if no token is set, or if names are given; "
        "localhost, IP addresses and this machine's own names are always allowed",
    )
    trusted_proxies: Words = Field(
        (),
        description="IP addresses or networks of proxies, such as `127.0.0.1`, whose headers "
        "`X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` are trusted",
    )
    root_path: str = Field(
        "",
        description="Path below which a proxy offers the service, such as `/vision`; whether the "
        "proxy removes it or not",
    )
    rate_limit: float = Field(
        0,
        ge=0,
        description="Most requests per second and client, each with up to 32 images; 0: no limit",
    )
    max_connections: int = Field(
        1000, ge=0, description="Most open connections per client address; 0: no limit"
    )

    max_body_mb: float = Field(32, gt=0, description="Largest request body, in MiB")
    max_model_mb: float = Field(1024, gt=0, description="Largest model file to import, in MiB")
    import_timeout: float = Field(
        180, gt=20, description="Time limit for importing a model or dataset, in seconds"
    )
    max_upload_mb: float = Field(2048, gt=0, description="Largest dataset upload, in MiB")
    max_pixels: int = Field(
        50_000_000,
        gt=0,
        description="Largest image, in pixels. The estimated CPU time to decode an image is also "
        "limited: to 80 ns × this number, which is 4 s by default. Images above either limit get "
        "413",
    )
    decode: Literal["fast", "exact"] = Field(
        "fast",
        description="How JPEG files far larger than the network's input are decoded: `fast`: at "
        "1/2, 1/4 or 1/8 of their size, as far as this is not below the input's; `exact`: in full",
    )
    image_url: Literal["off", "public"] = Field(
        "off",
        description="Whether images are fetched by URL: `off`: never; `public`: from public "
        "addresses",
    )
    image_url_timeout: float = Field(
        10, gt=0, description="Time limit for fetching one image by URL, in seconds"
    )
    label_studio_url: str | None = Field(
        None, description="Address of your Label Studio, from which its images are fetched"
    )
    label_studio_token: SecretStr | None = Field(
        None, description="Access token of Label Studio, personal or legacy, to fetch its images"
    )

    gateway_workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of gateway processes, for engines so fast that one is the limit. "
        "Memory, places and connections that requests may take up are divided among them",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device that runs the models"
    )
    engine: Engine = Field(
        "auto",
        description="Engine that runs the models: `auto`: the fastest that was measured and is "
        "exact enough. Any other value forces one, and a model that it cannot serve gets 503; "
        "`onnxruntime`, `openvino` and `int8` (OpenVINO) run on the CPU, `torch` and `tensorrt` on "
        "a GPU",
    )
    int8_max_drop: float = Field(
        0.5,
        ge=0,
        le=100,
        description="Largest loss of mAP50-95, or of a classifier's accuracy, in points of 100, "
        "with which int8 serves. No class may lose more than `gate_max_class_drop` either",
    )
    queue_length: int = Field(
        128,
        gt=0,
        description="Maximum number of images waiting for a batch, each tile counted; more get "
        "503. As many may wait for models that are being loaded",
    )
    max_batch: int = Field(0, ge=0, description="Most images per batch; 0: 2 on a CPU, 32 on a GPU")
    sessions: int = Field(
        0, ge=0, description="Number of parallel single-threaded CPU sessions; 0: one per core"
    )
    model_cache: int = Field(4, gt=0, description="Most models that a runner keeps loaded")
    request_timeout: float = Field(
        60, gt=0, description="Seconds until a request is answered with 504"
    )

    keep_below: float = Field(
        0,
        ge=0,
        le=1,
        description="Images of requests are kept if a prediction has a lower confidence; 0: no "
        "image is kept",
    )
    keep_mb: float = Field(
        512, gt=0, description="Most space for kept images, in MiB; the oldest are deleted"
    )

    pretrained: Path | None = Field(
        None, description="Folder of pretrained weights (yolov8n.pt, …) to start trainings from"
    )
    allow_download: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether jobs fetch pretrained weights that are missing: `auto`: if they can "
        "be fetched, else the training starts from scratch; `always` (or `true`): a training fails "
        "without them; `never` (or `false`)",
    )
    download_url: str | None = Field(
        None,
        description="Address of a mirror of the pretrained weights, a folder with files such as "
        "yolov8n.pt; default: their publishers'. HTTP_PROXY and HTTPS_PROXY apply",
    )

    train_slots: int = Field(
        0,
        ge=0,
        description="Most jobs that run at the same time; 0: as many as have their own "
        "`train_gpus` GPUs, or one on a CPU",
    )
    train_gpus: int = Field(
        1,
        ge=1,
        description="GPUs of one machine that a training uses together, if its mode is regular or "
        "freeze-strategy, its model is a YOLO, and its batch is a multiple of this number",
    )
    cluster_url: str | None = Field(
        None,
        description="Address of a Ray cluster on which trainings, evaluations and annotations run, "
        "such as http://ray-head:8265; needs PostgreSQL, `store_url` and `train_slots`",
    )
    cluster_token: SecretStr | None = Field(
        None, description="Ray's authentication token (RAY_AUTH_TOKEN) for this cluster"
    )
    jobs_per_token: int = Field(
        100,
        ge=0,
        description="Most jobs of one token, or of one address without tokens, that wait or run; "
        "more get 429. 0: no limit",
    )
    train_threads: int = Field(
        0, ge=0, description="CPU threads for all jobs together; 0: three quarters of the cores"
    )
    train_attempts: int = Field(
        3, gt=0, description="Number of crashes without a new checkpoint after which a job fails"
    )
    train_stall_minutes: float = Field(
        60,
        ge=0,
        description="Minutes without progress or output after which a job is restarted; 0: never",
    )

    gate: bool = Field(
        False,
        description=(
            "Whether every promotion is checked with the gate of the settings below, unless the "
            "request has its own gate"
        ),
    )
    gate_dataset: str | None = Field(
        None,
        description=(
            "Dataset on which the gate compares the versions; default: the dataset that the new "
            "version was trained on"
        ),
    )
    gate_metric: Figure | None = Field(
        None,
        description="Metric that the gate compares; default: accuracy for classifiers, else "
        "mAP50-95",
    )
    gate_min_gain: float = Field(
        0.0, ge=-1, le=1, description="Smallest gain of the metric with which the gate promotes"
    )
    gate_max_class_drop: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest drop of a single class with which the gate promotes, from 0 to 1",
    )
    gate_allow_unmeasured: bool = Field(
        False, description="Promote even if a known class has no object in the dataset"
    )

    webhook_url: Words = Field(
        (),
        description="Addresses that are sent a signed message when a job ends, such as "
        "`https://hooks.example/visionloop`; a comma inside an address is written `%2C`",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Secret of at least 16 characters with which these messages are signed; "
        "needed if `webhook_url` is set",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description=(
            "Lowest level of the log lines that every process writes; INFO has a line for each "
            "request, DEBUG also for probes"
        ),
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log lines: text, or one JSON object a line"
    )

    @field_validator("home", "pretrained")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return _expanded(value) if value else None

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        if isinstance(value, str):
            parts = re.split(f"[,{os.pathsep}]", value)
            return tuple(_expanded(Path(part.strip())) for part in parts if part.strip())
        return value

    @field_validator("cors_origins", "hosts", "trusted_proxies", "webhook_url", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """As browsers send them: in lower case, without a path."""
        for origin in value:
            if origin != "*" and not re.fullmatch(r"[a-zA-Z][\w+.-]*://[^/\s?#@]+/?", origin):
                raise PydanticCustomError(
                    "cors_origins",
                    "{origin} is not an origin; write https://labels.example, without a path",
                    {"origin": repr(origin[:100])},
                )
        return tuple(origin.lower().rstrip("/") for origin in value)

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if host != "*" and not re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*\.?", host):
                raise PydanticCustomError(
                    "hosts",
                    "{host} is not a host name; write labels.example, without scheme and port",
                    {"host": repr(host[:100])},
                )
        return tuple(host.lower().rstrip(".") for host in value)

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, value: str) -> str:
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

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
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

    @field_validator("webhook_url")
    @classmethod
    def _webhook_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, address in enumerate(value, 1):
            if not _is_webhook_address(address):  # not repeated: it may contain a password
                raise PydanticCustomError(
                    "webhook_url",
                    "Address {number} is not like https://hooks.example/visionloop (http or "
                    "https, a host, no fragment, no spaces)",
                    {"number": number},
                )
        return tuple(dict.fromkeys(value))

    @field_validator("token", "admin_token", "webhook_secret", "cluster_token")
    @classmethod
    def _without_line_end(cls, value: SecretStr | None) -> SecretStr | None:
        """The secret without white space around it, such as the line end of a file it came from."""
        given = value.get_secret_value() if value else ""
        if given and not given.strip():
            raise PydanticCustomError("blank_secret", "It is blank: write a secret, or unset it")
        return SecretStr(given.strip()) if given else value

    @field_validator("webhook_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < SHORTEST_SECRET:
            raise PydanticCustomError(
                "webhook_secret",
                "The secret needs at least {least} characters; write the output of "
                "`openssl rand -hex 32`",
                {"least": SHORTEST_SECRET},
            )
        return value

    @model_validator(mode="after")
    def _signed_webhooks(self) -> Settings:
        if self.webhook_url and self.webhook_secret is None:
            raise PydanticCustomError(
                "webhook_secret",
                "VISIONLOOP_WEBHOOK_URL needs VISIONLOOP_WEBHOOK_SECRET, with which receivers "
                "verify the messages; write the output of `openssl rand -hex 32`",
            )
        return self

    @model_validator(mode="after")
    def _whole_cluster(self) -> Settings:
        if self.cluster_url is None:
            return self
        postgres = self.sqlalchemy_url.get_backend_name() == "postgresql"
        needed = {
            "VISIONLOOP_DATABASE_URL of a PostgreSQL, as its nodes cannot reach a file of this "
            "machine": postgres,
            "VISIONLOOP_STORE_URL, as its nodes share no folder with this machine": self.store_url,
            "VISIONLOOP_TRAIN_SLOTS, the number of jobs for which it has room": self.train_slots,
        }
        for what, given in needed.items():
            if not given:
                raise PydanticCustomError(
                    "cluster", "VISIONLOOP_CLUSTER_URL needs {what}", {"what": what}
                )
        return self

    @model_validator(mode="after")
    def _gpus_of_the_device(self) -> Settings:
        if self.train_gpus > 1 and self.device == "cpu":
            raise PydanticCustomError(
                "train_gpus", "VISIONLOOP_TRAIN_GPUS above 1 needs VISIONLOOP_DEVICE cuda or auto"
            )
        return self

    @model_validator(mode="after")
    def _engine_of_the_device(self) -> Settings:
        device = {"torch": "cuda", "tensorrt": "cuda", "auto": self.device}.get(self.engine, "cpu")
        if self.device not in ("auto", device):
            raise PydanticCustomError(
                "engine",
                "VISIONLOOP_ENGINE={engine} needs VISIONLOOP_DEVICE {device} or auto, not {given}",
                {"engine": self.engine, "device": device, "given": self.device},
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _no_misspelt_variable(cls, values: object) -> object:
        for variable in unknown_variables(os.environ):
            if name := meant(variable.removeprefix(PREFIX), cls.model_fields):
                raise PydanticCustomError(
                    "misspelt",
                    "{variable} is not a setting: did you mean {name}",
                    {"variable": variable, "name": variable_of(name)},
                )
        return values

    @field_validator("allow_download", mode="before")
    @classmethod
    def _former_switch(cls, value: object) -> object:
        """The switch of former versions: true meant that a training fails without the weights."""
        if isinstance(value, bool):
            return "always" if value else "never"
        text = str(value).strip().lower()
        return {**dict.fromkeys(YES, "always"), **dict.fromkeys(NO, "never")}.get(text, text)

    @field_validator("label_studio_url", "download_url", "cluster_url")
    @classmethod
    def _web_address(cls, value: str | None, info: ValidationInfo) -> str | None:
        address = re.fullmatch(r"https?://[^/\s?#@]+?(:\d{1,5})?(/[^\s?#@]*)?", value or "")
        port = int((address[1] or ":80")[1:]) if address else 0
        if value and not 0 < port < 2**16:
            example = ADDRESSES[info.field_name or ""]
            raise PydanticCustomError(
                "web_address", "This is not an address like {example}", {"example": example}
            )
        return value.rstrip("/") if value else None

    @field_validator("database_url")
    @classmethod
    def _usable_database(cls, value: str | None) -> str | None:
        if value and (fault := _database_fault(value)):
            raise PydanticCustomError("database_url", "{fault}", {"fault": fault})
        return value

    @field_validator("store_url")
    @classmethod
    def _usable_store(cls, value: str | None) -> str | None:
        if value:
            split_store_url(value)
        return value.rstrip("/") if value else None

    @property
    def paths(self) -> HomePaths:
        return HomePaths(self.home)

    @property
    def sqlalchemy_url(self) -> URL:
        from sqlalchemy.engine import URL, make_url  # slow to import

        if self.database_url:
            return make_url(self.database_url)
        return URL.create("sqlite", database=str(self.paths.database))

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1024 * 1024)

    @property
    def max_model_bytes(self) -> int:
        return int(self.max_model_mb * 1024 * 1024)

    @property
    def max_upload_bytes(self) -> int:
        return int(self.max_upload_mb * 1024 * 1024)

    def per_gateway(self, number: int) -> int:
        """The share of each gateway process of a number for all of them, rounded up."""
        return -(-number // self.gateway_workers)

    def masked(self) -> dict[str, str]:
        """The settings as printable text, with secrets masked."""
        values = {
            name: "(set)" if isinstance(value, SecretStr) else str(value) for name, value in self
        }
        values["webhook_url"] = str(tuple(map(without_credentials, self.webhook_url)))
        if self.database_url:
            url = self.sqlalchemy_url  # libpq takes a password among the parameters, too
            shown = url.set(query={}).render_as_string() + ("?…" if url.query else "")
            values["database_url"] = shown
        return values


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


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The variables with our prefix that no part of VisionLoop reads, in upper case, sorted."""
    known = {variable_of(name) for name in Settings.model_fields} | OTHER_VARIABLES
    found = {name.upper() for name in environment if name.upper().startswith(PREFIX)}
    return sorted(name for name in found - known if not KUBERNETES.fullmatch(name))


def refusals(error: ValidationError) -> list[str]:
    """A sentence for each reason why the settings cannot be used."""
    return [
        f"{variable_of('_'.join(map(str, found['loc'])))}: {found['msg']}."
        if found["loc"]
        else f"{found['msg']}{'?' if found['type'] == 'misspelt' else '.'}"
        for found in error.errors()
    ]


def settings_without_effect(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """A sentence for each setting that has no effect now, which may be a mistake."""
    lines = [
        f"{name} is not a setting and has no effect." for name in unknown_variables(environment)
    ]
    if settings.cluster_token and not settings.cluster_url:
        lines.append("VISIONLOOP_CLUSTER_TOKEN has no effect without VISIONLOOP_CLUSTER_URL.")
    if settings.webhook_secret and not settings.webhook_url:
        lines.append("VISIONLOOP_WEBHOOK_SECRET has no effect without VISIONLOOP_WEBHOOK_URL.")
    folders: Iterable[tuple[str, Path]] = [("data_roots", root) for root in settings.data_roots]
    if settings.pretrained:
        folders = [*folders, ("pretrained", settings.pretrained)]
    for name, folder in folders:
        if not folder.is_dir():
            lines.append(f"{variable_of(name)}: there is no folder {folder}.")
    return lines


def _is_webhook_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # a port that is no number, or unbalanced brackets
        return False
    plain = text.isascii() and text.isprintable() and not re.search(r"[\s#\\]", text)
    known = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and port != 0
    return plain and known and len(text) <= LONGEST_ADDRESS


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


def _database_fault(text: str) -> str | None:
    """The reason why a database URL is invalid, without its password; None if it is valid."""
    from sqlalchemy.engine import make_url  # slow to import
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    example = "write postgresql+psycopg://USER:PASSWORD@HOST/NAME or sqlite:////PATH"
    try:
        url = make_url(text)
        if f"{url.get_backend_name()}+{url.get_driver_name()}" not in DRIVERS:
            return f"This kind of database or driver is not supported; {example}"
        place = url.database or ""
        if url.get_backend_name() == "sqlite" and not place.startswith(("/", ":", "file:")):
            return "SQLite needs the full path of its file; write sqlite:////PATH"
    except (ArgumentError, NoSuchModuleError, ValueError):
        return f"This is not a database URL; {example}"
    return None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; tests call `get_settings.cache_clear()`."""
    return Settings()
