"""Ultralytics without its side effects: call `prepare()` before importing it.

Ultralytics 8.4.190 probes the network, installs packages, downloads fonts, writes settings into
the user's home, reports usage, installs hooks for mlflow, ClearML, Comet, DVC and Ray, and limits
OMP to one thread at import. All of this is switched off here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cores import cpu_count
from files import atomic_write
from settings import get_settings

if TYPE_CHECKING:
    from PIL import Image

PATCHES = "ultralytics.utils.patches"
FONTS = ("Arial.ttf", "Arial.Unicode.ttf")  # the two names it looks for before downloading


def pillow_open(file: IO[bytes], formats: tuple[str, ...]) -> Image.Image:
    """Pillow's `Image.open`, which Ultralytics replaces when it is imported.

    That of Ultralytics tries to install a package for bytes that are no image.

    Args:
        file: The encoded image.
        formats: Pillow's names of the formats that may be read.
    """
    from PIL import Image

    patches = sys.modules.get(PATCHES)
    original = Image.open if patches is None else patches._image_open
    return original(file, formats=formats)


def environment(home: Path | None = None, threads: int | None = None) -> dict[str, str]:
    """The variables that a process needs before it imports ultralytics.

    Args:
        home: VisionLoop's home; default: that of the settings.
        threads: OMP threads; default: one per core.
    """
    folder = (home or get_settings().home) / "ultralytics"
    return {
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(folder),
        "YOLO_VERBOSE": "false",
        "ULTRALYTICS_SAFE_LOAD": "1",
        "OMP_NUM_THREADS": str(threads or cpu_count()),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "MPLBACKEND": "agg",
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # as in _onnxruntime: Ultralytics imports it by itself
    }


def prepare(home: Path | None = None, threads: int | None = None) -> None:
    """Set the environment, and write the settings and fonts that prevent the side effects.

    Idempotent. `YOLO_CONFIG_DIR`, `OMP_NUM_THREADS` and `MPLCONFIGDIR` are not changed if they are
    set; the variables that prevent package installation and network access are always set.

    Raises:
        RuntimeError: ultralytics was already imported, with a different environment.
    """
    guards = {"YOLO_OFFLINE", "YOLO_AUTOINSTALL", "ULTRALYTICS_SAFE_LOAD", "ORT_DISABLE_TELEMETRY"}
    late = "ultralytics" in sys.modules
    for name, value in environment(home, threads).items():
        if late and name in guards and os.environ.get(name) != value:
            raise RuntimeError(f"ultralytics was imported before prepare() could set {name}.")
        if name in guards or not os.environ.get(name):
            os.environ[name] = value
    if not late:
        _write_configuration(Path(os.environ["YOLO_CONFIG_DIR"]) / "Ultralytics")


def _write_configuration(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.json"
    if not settings.exists():
        atomic_write(settings, json.dumps(_settings(folder), indent=2))  # as processes may race
    if all((folder / name).exists() for name in FONTS):
        return
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is None or not matplotlib.submodule_search_locations:
        return
    root = Path(matplotlib.submodule_search_locations[0])
    font = root / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    if font.exists():
        for name in FONTS:
            atomic_write(folder / name, font.read_bytes())


def _settings(folder: Path) -> dict[str, object]:
    off = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
    return {
        "settings_version": "0.0.8",
        "datasets_dir": str(folder / "datasets"),
        "weights_dir": str(folder / "weights"),
        "runs_dir": str(folder / "runs"),
        "uuid": uuid.uuid4().hex * 2,
        "api_key": "",
        "openai_api_key": "",
        **dict.fromkeys((*off, "vscode_msg", "openvino_msg"), False),
    }
