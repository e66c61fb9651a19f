from __future__ import annotations

import io
import subprocess
import sys

import pytest
from PIL import UnidentifiedImageError

from models_store.ultralytics_env import environment, pillow_open
from tests.support.serving import ROOT

READ = """
import io
from models_store import ultralytics_env
ultralytics_env.prepare()
import ultralytics.utils.patches
from PIL import UnidentifiedImageError
try:
    ultralytics_env.pillow_open(io.BytesIO(b"no image"), ("PNG",))
except UnidentifiedImageError:
    print("unidentified")
"""


def test_bytes_that_are_no_image_install_nothing_where_ultralytics_is_imported() -> None:
    with pytest.raises(UnidentifiedImageError):
        pillow_open(io.BytesIO(b"no image"), ("PNG",))
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "unidentified\n"


def test_the_environment_forbids_downloads() -> None:
    told = environment(ROOT, threads=1)
    assert told["YOLO_OFFLINE"] == "1"
    assert told["YOLO_AUTOINSTALL"] == "false"
