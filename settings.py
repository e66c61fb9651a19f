"""The settings, read from environment variables named `VISIONLOOP_*`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ByteSize, Field, SecretStr, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from field_names import meant
from home_paths import HomePaths
from setting_values import (
    DatabaseUrl,
    Download,
    Folder,
    Folders,
    HostNames,
    LongSecret,
    Networks,
    OptionalFolder,
    Origins,
    RootPath,
    Secret,
    StoreUrl,
    WebhookAddresses,
    web_address,
    without_credentials,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

Figure = Literal[
    "accuracy", "accuracy_top5", "precision", "recall", "f1_score", "mAP50", "mAP50_95",
    "mask_mAP50", "mask_mAP50_95", "pose_mAP50", "pose_mAP50_95",
]  # fmt: skip

Engine = Literal["auto", "onnxruntime", "openvino", "int8", "torch", "tensorrt"]

PREFIX = "VISIONLOOP_"
OTHER_VARIABLES = frozenset(
    {"VISIONLOOP_CLAIM", "VISIONLOOP_JOB", "VISIONLOOP_PYTHON", "VISIONLOOP_URL"}
)
"""Variables with our prefix that are not settings.

VISIONLOOP_JOB and VISIONLOOP_CLAIM are set for a job's process; the others are read by shell
commands.
"""

KUBERNETES = re.compile(r"VISIONLOOP_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_[A-Z]+(_[A-Z]+)?)?)")
"""Variables that Kubernetes sets in containers, if their namespace has a service `visionloop`."""


class Settings(BaseSettings):
    """Typed settings with their defaults; docs/reference/settings.md lists them.

    Lists are comma-separated in the environment; between folders, `:` separates as well. An invalid
    value prevents the start, with a message that names the setting, and so does a variable whose
    name is nearly that of a setting.
    """

    model_config = SettingsConfigDict(
        env_prefix="VISIONLOOP_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    home: Folder = Field(Path("~/.visionloop"), description="Folder of database, jobs and datasets")
    database_url: DatabaseUrl = Field(
        None,
        description="URL of a PostgreSQL database, postgresql+psycopg://USER:PASSWORD@HOST/NAME, "
        "or of a SQLite file; default: SQLite in VISIONLOOP_HOME",
    )
    store_url: StoreUrl = Field(
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

    token: Secret = Field(
        None,
        description="Token that requests must send; unset: no token is needed until a named token "
        "is created",
    )
    admin_token: Secret = Field(
        None,
        description="Token for training, import, activation and deletion; unset: `token` is enough",
    )
    audit_days: int = Field(
        365,
        ge=0,
        le=36_500,
        description="Days for which entries of the audit trail are kept; 0: for ever",
    )
    cors_origins: Origins = Field(
        (), description="Origins of web pages that may call this server (CORS); `*`: all"
    )
    hosts: HostNames = Field(
        (),
        description="Host names of this server that requests may use, such as `labels.example` or "
        "`*.lab.example`; `*`: all. They are checked if no token is set, or if names are given; "
        "localhost, IP addresses and this machine's own names are always allowed",
    )
    trusted_proxies: Networks = Field(
        (),
        description="IP addresses or networks of proxies, such as `127.0.0.1`, whose headers "
        "`X-Forwarded-For`, `-Proto`, `-Host` and `-Prefix` are trusted",
    )
    root_path: RootPath = Field(
        "",
        description="Path below which a proxy offers the service, such as `/vision`; whether the "
        "proxy removes it or not",
    )
    rate_limit: float = Field(
        0,
        ge=0,
        description="Most requests per second and client, each with up to 32 images; 0: no limit. "
        "Images that pages load count apart, a hundred as one",
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
    label_studio_url: Annotated[str | None, web_address("http://labels.example:8080")] = Field(
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

    pretrained: OptionalFolder = Field(
        None, description="Folder of pretrained weights (yolov8n.pt, …) to start trainings from"
    )
    allow_download: Download = Field(
        "auto",
        description="Whether jobs fetch pretrained weights that are missing: `auto`: if they can "
        "be fetched, else the training starts from scratch; `always` (or `true`): a training fails "
        "without them; `never` (or `false`)",
    )
    download_url: Annotated[
        str | None, web_address("https://mirror.example/weights, without user name and query")
    ] = Field(
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
    cluster_url: Annotated[str | None, web_address("http://ray-head:8265")] = Field(
        None,
        description="Address of a Ray cluster on which trainings, evaluations and annotations run, "
        "such as http://ray-head:8265; needs PostgreSQL, `store_url` and `train_slots`",
    )
    cluster_token: Secret = Field(
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

    webhook_url: WebhookAddresses = Field(
        (),
        description="Addresses that are sent a signed message when a job ends, such as "
        "`https://hooks.example/visionloop`; a comma inside an address is written `%2C`",
    )
    webhook_secret: LongSecret = Field(
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


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once; tests call `get_settings.cache_clear()`."""
    return Settings()
