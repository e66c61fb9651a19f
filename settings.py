"""Everything that can be configured, read from environment variables named `VISIONLOOP_*`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

Folders = Annotated[tuple[Path, ...], NoDecode]
Words = Annotated[tuple[str, ...], NoDecode]

Figure = Literal[
    "accuracy", "accuracy_top5", "precision", "recall", "f1_score", "mAP50", "mAP50_95",
    "mask_mAP50", "mask_mAP50_95", "pose_mAP50", "pose_mAP50_95",
]  # fmt: skip

DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Packages that are named otherwise than the module in them."""


@dataclass(frozen=True)
class HomePaths:
    """Where things are in VISIONLOOP_HOME."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file, where no other database is configured."""
        return self.root / "visionloop.db"

    @property
    def datasets(self) -> Path:
        """A folder for each data set, by its id."""
        return self.root / "datasets"

    @property
    def uploads(self) -> Path:
        """What is being uploaded, unpacked or deleted."""
        return self.root / "uploads"

    @property
    def jobs(self) -> Path:
        """A folder for each job: checkpoints and its log."""
        return self.root / "jobs"

    @property
    def evaluations(self) -> Path:
        """A folder for each evaluation: report and plots."""
        return self.root / "evaluations"

    @property
    def kept_images(self) -> Path:
        """Images of live requests that are worth an annotation."""
        return self.root / "kept"

    @property
    def image_cache(self) -> Path:
        """What reading the images of data sets found."""
        return self.root / "cache" / "pictures"

    @property
    def engines(self) -> Path:
        """TensorRT engines that were built for this GPU."""
        return self.root / "engines"

    @property
    def pretrained(self) -> Path:
        """Pretrained weights that were downloaded."""
        return self.root / "pretrained"

    @property
    def starter_sets(self) -> Path:
        """The drawn data sets that starter models are measured on."""
        return self.root / "starter-sets"

    @property
    def metrics(self) -> Path:
        """The files in which processes share their Prometheus metrics."""
        return self.root / "run" / "metrics"

    @property
    def schema_lock(self) -> Path:
        """Held by a process that creates or migrates the tables of the SQLite file."""
        return self.root / "schema.lock"

    @property
    def dispatcher_lock(self) -> Path:
        """Held by the one dispatcher that runs the jobs of this home."""
        return self.root / "dispatcher.lock"

    @property
    def seed_lock(self) -> Path:
        """Held by a process that imports the starter models."""
        return self.root / "seed.lock"


class Settings(BaseSettings):
    """Typed settings with their defaults; docs/reference/settings.md lists them.

    Lists are comma-separated in the environment. An unusable value stops the start with a
    message that names the variable.
    """

    model_config = SettingsConfigDict(
        env_prefix="VISIONLOOP_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    home: Path = Field(Path("~/.visionloop"), description="Database, jobs, datasets, uploads")
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default: SQLite in VISIONLOOP_HOME"
    )
    data_roots: Folders = Field(
        (), description="Folders that clients may name paths in, besides VISIONLOOP_HOME/datasets"
    )

    token: SecretStr | None = Field(None, description="Token for use; unset: open")
    admin_token: SecretStr | None = Field(
        None,
        description="Token for training, import, activation, deletion; unset: `token` is enough",
    )
    cors_origins: Words = Field((), description="Browser origins allowed to call; `*` for all")
    rate_limit: float = Field(0, ge=0, description="Requests a second per client; 0: no limit")

    max_body_mb: float = Field(32, gt=0, description="Largest request body, in MiB")
    max_model_mb: float = Field(1024, gt=0, description="Largest model file to import, in MiB")
    import_timeout: float = Field(
        180, gt=20, description="Seconds in which a model or data set must be imported"
    )
    max_upload_mb: float = Field(2048, gt=0, description="Largest data set upload, in MiB")
    max_pixels: int = Field(50_000_000, gt=0, description="Largest image, in pixels")
    image_url: Literal["off", "public"] = Field(
        "off", description="Fetch images by URL: never, or from public addresses"
    )
    image_url_timeout: float = Field(10, gt=0, description="Seconds for one fetch")
    label_studio_url: str | None = Field(
        None, description="Address of your Label Studio: its pictures are fetched from there"
    )
    label_studio_token: SecretStr | None = Field(
        None, description="Access token of Label Studio, personal or legacy, for its pictures"
    )

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models run")
    queue_length: int = Field(128, gt=0, description="Requests waiting for a batch before 503")
    max_batch: int = Field(0, ge=0, description="Items a batch; 0: 2 on a CPU, 32 on a GPU")
    sessions: int = Field(
        0, ge=0, description="One-thread CPU sessions side by side; 0: one a core"
    )
    model_cache: int = Field(4, gt=0, description="Models kept loaded by a runner")
    request_timeout: float = Field(60, gt=0, description="Seconds before a request answers 504")

    keep_below: float = Field(
        0, ge=0, le=1, description="Keep pictures of answers less confident than this; 0: none"
    )
    keep_mb: float = Field(512, gt=0, description="Room for kept pictures, in MiB; oldest go first")

    pretrained: Path | None = Field(
        None, description="Folder of pretrained weights (yolov8n.pt, …) that trainings start from"
    )
    allow_download: bool = Field(
        False, description="Fetch pretrained weights from Ultralytics when they are not at hand"
    )

    train_slots: int = Field(
        0, ge=0, description="Jobs that run at once; 0: one a GPU, one on a CPU"
    )
    train_threads: int = Field(
        0, ge=0, description="CPU threads of all jobs together; 0: leave the service a quarter"
    )
    train_attempts: int = Field(
        3, gt=0, description="Crashes in a row, without a new checkpoint, that end a job"
    )
    train_stall_minutes: float = Field(
        60, ge=0, description="Without progress or output a job's process is hung; 0: never"
    )

    gate: bool = Field(
        False, description="Hold every promotion against the gate below, unless it brings its own"
    )
    gate_dataset: str | None = Field(
        None, description="Data set to compare on; default: what the new version was trained with"
    )
    gate_metric: Figure | None = Field(
        None, description="Figure that must not fall; default: accuracy of classifiers, else mAP"
    )
    gate_min_gain: float = Field(0.0, ge=-1, le=1, description="The least gain of that figure")
    gate_max_class_drop: float = Field(
        0.05, ge=0, le=1, description="What a single class may lose, from 0 to 1"
    )
    gate_allow_unmeasured: bool = Field(
        False, description="Promote although some known class has no object in the data"
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("home", "pretrained")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return _expanded(value) if value else None

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(_expanded(Path(part)) for part in value.split(",") if part)
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("label_studio_url")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#@]*)?", value):
            raise PydanticCustomError(
                "label_studio_url", "This is no address such as http://labels.example:8080"
            )
        return value.rstrip("/") if value else None

    @field_validator("database_url")
    @classmethod
    def _usable_database(cls, value: str | None) -> str | None:
        if value and (fault := _database_fault(value)):
            raise PydanticCustomError("database_url", "{fault}", {"fault": fault})
        return value

    @property
    def paths(self) -> HomePaths:
        return HomePaths(self.home)

    @property
    def sqlalchemy_url(self) -> URL:
        from sqlalchemy.engine import URL, make_url  # it takes a moment

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

    def masked(self) -> dict[str, str]:
        """Setting names and printable values, secrets hidden."""
        values = {
            name: "(set)" if isinstance(value, SecretStr) else str(value) for name, value in self
        }
        if self.database_url:
            from sqlalchemy.engine import make_url  # it takes a moment

            values["database_url"] = make_url(self.database_url).render_as_string()
        return values


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except RuntimeError:  # no HOME and no account, or `~name` of nobody
        raise PydanticCustomError(
            "home",
            "There is no home folder for {path} here; name a folder by its full path",
            {"path": str(path)},
        ) from None


def _database_fault(text: str) -> str | None:
    """Why this cannot be the database, without showing its password; None when it can."""
    from sqlalchemy.engine import make_url  # only where it is needed: it takes a moment
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    example = "write postgresql+psycopg://USER:PASSWORD@HOST/NAME or sqlite:////PATH"
    try:
        url = make_url(text)
        url.get_dialect().import_dbapi()
        place = url.database or ""
        if url.get_backend_name() == "sqlite" and not place.startswith(("/", ":", "file:")):
            return "SQLite needs the whole path of its file; write sqlite:////PATH"
    except NoSuchModuleError:
        return f"There is no such kind of database; {example}"
    except ModuleNotFoundError as error:
        package = DRIVERS.get(str(error.name), error.name)
        return f"The driver for {url.drivername} is missing: pip install {package}"
    except (ArgumentError, ValueError):
        return f"This is not a database URL; {example}"
    return None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process; tests call `get_settings.cache_clear()`."""
    return Settings()
