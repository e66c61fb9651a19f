"""Which engine serves a model on this machine's CPU, as `engines.trial` measured and stored it.

The record lies in VISIONLOOP_HOME, beside the quantised network: both can be made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from files import atomic_write, sha256_of
from inference.device import cpu_sessions
from models_store.description import engines as exported_engines
from settings import Settings

RECORD = "choice.json"
INT8_FILE = "int8.xml"
FORMAT = 1  # increment it when records of before cannot be used
PROGRAMS = ("onnxruntime", "openvino", "nncf")
CPU_INFO = Path("/proc/cpuinfo")
# What the speed and the values of the engines depend on, as Linux names it: of x86, then of ARM.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
         "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16", "sme", "sme2")  # fmt: skip

# Environment variables that keep OpenVINO from instructions that the CPU has
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")

CpuEngine = Literal["onnxruntime", "openvino", "int8"]


class EngineTrial(BaseModel):
    """What was found out about one engine."""

    model_config = ConfigDict(extra="ignore")

    engine: CpuEngine = Field(description="the engine that was tried")
    usable: bool = Field(description="whether it may serve: it works and is exact enough")
    note: str = Field(description="why it may or may not serve, in a sentence")
    milliseconds: dict[str, float] = Field(
        {},
        description="median times of the network alone, by `HEIGHTxWIDTH` and `one thread` or "
        "`all threads`; empty: it was not measured",
    )
    relative_time: float | None = Field(
        None, description="geometric mean of its times relative to ONNX Runtime's; below 1: faster"
    )
    metrics: dict[str, float] = Field(
        {}, description="of int8: its metrics on `dataset`, as an evaluation has them"
    )
    fp32_metrics: dict[str, float] = Field({}, description="the same metrics in fp32")
    worst_class: str | None = Field(None, description="the class that int8 costs most")
    worst_class_drop: float | None = Field(
        None, description="that class's loss of its metric, from 0 to 1"
    )


class EngineChoice(BaseModel):
    """The engine that serves a model on this machine's CPU, and why."""

    model_config = ConfigDict(extra="ignore")

    engine: CpuEngine = Field(description="the engine that serves with VISIONLOOP_ENGINE=auto")
    reason: str = Field(description="why it does, in a sentence")
    engines: list[EngineTrial] = Field(description="the engines that were tried")
    dataset: str | None = Field(
        None, description="the dataset of int8: calibrated on its train split, evaluated on `split`"
    )
    split: str | None = Field(None, description="the split on which int8 was evaluated")
    calibration_images: int = Field(0, description="number of images that int8 was calibrated on")
    machine: dict[str, Any] = Field(
        description="the CPU and the versions that it holds for: others are measured again"
    )
    load: float = Field(description="cores that other processes used during the times, at most")
    measured_at: str = Field(description="when, in UTC")
    seconds: float = Field(description="how long the trial took")

    def trial(self, engine: CpuEngine) -> EngineTrial | None:
        return next((one for one in self.engines if one.engine == engine), None)

    def to_json(self) -> dict[str, Any]:
        """The choice in the form of responses."""
        return self.model_dump(include=set(EngineChoice.model_fields))


class StoredChoice(EngineChoice):
    """A choice with what shows whether it still holds.

    Attributes:
        onnx: SHA-256 of the model's ONNX file.
        files: SHA-256 of the files of int8, by name.
    """

    onnx: str
    files: dict[str, str]


def machine(settings: Settings) -> dict[str, Any]:
    """What the speed and the values of the engines depend on: CPU, cores, versions."""
    limits = {name: os.environ[name] for name in LIMITS if name in os.environ}
    return {"cores": cpu_sessions(settings)} | _fixed() | limits


@lru_cache(maxsize=1)
def _fixed() -> dict[str, Any]:
    try:
        text = CPU_INFO.read_text()
    except OSError:
        text = ""
    return described_cpu(text) | {program: _version(program) for program in PROGRAMS}


def described_cpu(text: str) -> dict[str, Any]:
    """The name and instructions of the first core in the content of /proc/cpuinfo.

    ARM's has no name. There it is made of the numbers of the maker and of the kind of core.
    """
    first, _, _ = text.partition("\n\n")
    rows = (line.partition(":") for line in first.splitlines())
    found = {key.strip(): value.strip() for key, _, value in rows}
    numbers = [found[key] for key in ("CPU implementer", "CPU part", "CPU variant") if key in found]
    has = found.get("flags", found.get("Features", "")).split()
    return {
        "cpu": found.get("model name") or " ".join([platform.machine(), *numbers]),
        "instructions": [flag for flag in FLAGS if flag in has],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def choice_folder(folder: Path, settings: Settings) -> Path:
    """The folder of a model folder's record and files for this machine; it need not exist."""
    text = json.dumps(machine(settings) | {"format": FORMAT}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return settings.paths.engines / folder.parent.name / folder.name / key


def read_choice(folder: Path, settings: Settings) -> StoredChoice | None:
    """The choice for a model folder on this machine.

    None if there is none, or it is damaged, or the ONNX file was made again since.
    """
    try:
        text = (choice_folder(folder, settings) / RECORD).read_bytes()
        found = StoredChoice.model_validate_json(text)
    except (OSError, ValidationError):
        return None
    return found if found.onnx == onnx_digest(folder) else None


def write_choice(folder: Path, choice: StoredChoice, settings: Settings) -> None:
    """Make a choice the one that holds; its files are there already."""
    target = choice_folder(folder, settings)
    target.mkdir(parents=True, exist_ok=True)
    atomic_write(target / RECORD, choice.model_dump_json(indent=1))


def choice_state(folder: Path, settings: Settings) -> object:
    """A value that changes when the choice does; one stat of a file."""
    try:
        stat = os.stat(choice_folder(folder, settings) / RECORD)
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def damaged_file(choice: StoredChoice, folder: Path) -> str | None:
    """The name of a file of a choice that is missing or not as it was written; None: all are."""
    for name, digest in choice.files.items():
        try:
            if sha256_of(folder / name) != digest:
                return name
        except OSError:
            return name
    return None


def onnx_digest(folder: Path) -> str:
    """The digest of a model's ONNX file, as its export recorded it."""
    return str(exported_engines(folder).get("onnx", {}).get("sha256", ""))
