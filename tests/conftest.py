"""Before anything of ours is imported: no test touches the user's home, or the network."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

for name in [name for name in os.environ if name.startswith("VISIONLOOP_")]:
    del os.environ[name]

HOME = Path(tempfile.mkdtemp(prefix="visionloop-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["VISIONLOOP_HOME"] = str(HOME / "home")
os.environ["BENTOML_HOME"] = str(HOME / "bento")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"

from models_store import _ultralytics  # noqa: E402

os.environ.update(_ultralytics.environment(HOME, threads=1))  # small models: no gain from two
