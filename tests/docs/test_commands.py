"""The commands of the tutorial and of the how-to pages, typed in order against a server.

Amounts are smaller than on the pages: see AMOUNTS. Everything else is as a reader types it, but for
the server's port and place. `make serve` starts the server again with the settings that stand
before it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from synthetic import shapes
from tests.docs.pages import PAGES, SPOKEN, blocks, commands
from tests.support.patience import PATIENCE
from tests.support.seeds import derived
from tests.support.serving import ROOT, Server
from tests.support.small_models import checkpoint, network

AMOUNTS = (  # on the page → in the test: a run of a minute, whatever it learns
    (r'"epochs": \d+', '"epochs": 1'),
    (r"--epochs \d+", "--epochs 1"),
    (r'"imgsz": \d+', '"imgsz": 64'),
    (r"--imgsz \d+", "--imgsz 64"),
    (r"--draw \$dir", "--draw $dir --pictures 12 --held-out 9"),
    (r'"min_gain": [\d.]+', '"min_gain": -1'),
    (r'"max_class_drop": [\d.]+', '"max_class_drop": 1, "allow_unmeasured": true'),
)
END = "=== the block has ended ==="
# What is typed before the first block. `make serve` tells the test what it would be started with.
PRELUDE = """set -eu -o pipefail
curl() { command curl --fail-with-body --max-time {patience} "$@"; }
make() { [ "$*" = serve ] && env -0 > "$SERVE"; }
"""


class Shell:
    """A bash that goes on from block to block, as that of a reader."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def type(self, text: str) -> None:
        """Fails where a command does."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{text}\necho; echo '{END}'\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.strip() == END:
                return
            self.output += line
        raise AssertionError(f"{text}\n\nended with {self.process.wait()}:\n{self.output[-4000:]}")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


class Serving:
    """The one server of the module, started again where other settings are asked for."""

    def __init__(self, home: Path) -> None:
        self.server = Server(home)
        self.own = dict(self.server.environment)

    def use(self, settings: dict[str, str]) -> Server:
        wanted = self.own | settings
        if self.server.process is None or self.server.environment != wanted:
            self.server.stop()
            self.server.environment = wanted
            self.server.start()
        return self.server


@pytest.fixture(scope="module")
def serving(new_home: Callable[[], Path]) -> Iterator[Serving]:
    serving = Serving(new_home())
    try:
        yield serving
    finally:
        serving.server.stop()


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take as given: a photo, zips of data, a checkpoint."""
    folder = tmp_path_factory.mktemp("material")
    shutil.copy(ROOT / "docs" / "street_scene.jpg", folder / "photo.jpg")
    for name, classes in (("signs", shapes.SHAPES), ("trams", ("tram",))):
        data = tmp_path_factory.mktemp(name)
        shapes.write_shapes(data, "detect", 8, 4, 64, derived(len(classes)))
        if name == "trams":
            _as_one_class(data, "tram")
        shutil.make_archive(str(folder / name), "zip", data)
    street = tmp_path_factory.mktemp("street")
    for number in range(2):
        shutil.copy(ROOT / "docs" / "street_scene.jpg", street / f"{number}.jpg")
    shutil.make_archive(str(folder / "street"), "zip", street)
    checkpoint(folder / "best.pt", network("detect"))
    return folder


def _as_one_class(data: Path, name: str) -> None:
    for labels in data.rglob("labels/**/*.txt"):
        lines = labels.read_text().splitlines()
        labels.write_text("".join(f"0 {line.partition(' ')[2]}\n" for line in lines))
    (described,) = data.glob("*.yaml")
    content = yaml.safe_load(described.read_text())
    described.write_text(yaml.safe_dump(content | {"names": [name]}))


def small(text: str) -> str:
    for pattern, fewer in AMOUNTS:
        text = re.sub(pattern, fewer, text)
    return text


@pytest.mark.pages
@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_work(
    page: Path, serving: Serving, material: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkout"
    shutil.copytree(material, folder)
    asked = tmp_path / "serve"
    typed = [small(text) for text in commands(page)]
    server = serving.server if "make serve" in typed[0] else serving.use({})
    shell = Shell(folder, _environment(server, asked))
    try:
        shell.type(PRELUDE.replace("{patience}", f"{PATIENCE:g}"))
        for text in typed:
            shell.type(text.replace("localhost:3000", f"127.0.0.1:{server.port}"))
            if asked.exists():
                serving.use(_settings(asked))
                asked.unlink()
    finally:
        shell.close()


def _environment(server: Server, asked: Path) -> dict[str, str]:
    path = [str(ROOT / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return server.environment | {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": str(ROOT),
        "VISIONLOOP_PYTHON": sys.executable,
        "SERVE": str(asked),
        "VISIONLOOP_URL": f"http://127.0.0.1:{server.port}",
    }


def _settings(asked: Path) -> dict[str, str]:
    """The settings that stood before `make serve`."""
    pairs = (line.partition("=") for line in asked.read_text().split("\0") if line)
    mine = {"VISIONLOOP_URL", "VISIONLOOP_HOME"}
    return {n: v for n, _, v in pairs if n.startswith("VISIONLOOP_") and n not in mine}


def test_a_page_without_a_command_that_is_run_says_so() -> None:
    for page in PAGES:
        shown = [block for block in blocks(page) if block.kind == "sh"]
        if shown and not commands(page) and page.name != "index.md":
            text = page.read_text()
            assert SPOKEN.search(text) or all(b.why.startswith("not run here:") for b in shown), (
                page
            )


def test_a_command_that_fails_fails_the_test(tmp_path: Path) -> None:
    shell = Shell(tmp_path, dict(os.environ))
    shell.type("set -e\nname=there\necho a > file")
    shell.type('test "$name" = there')
    with pytest.raises(AssertionError, match="ended with 1"):
        shell.type("cat file; false")
    shell.process.communicate()
    assert "a\n" in shell.output
