"""The Dockerfile of the built Bento; `make image-replay` does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.image.dockerfile import Image, Instruction, instructions
from tests.test_requirements import ROOT, locked


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built Bento's folder, with the Dockerfile that `bentoml containerize` would use."""
    home = tmp_path_factory.mktemp("bento")
    env = os.environ | {"BENTOML_HOME": str(home), "VISIONLOOP_HOME": str(home / "home")}
    written = ["benchmarks.image.dockerfile", str(home / "Dockerfile")]
    for command in (["bentoml", "build"], written):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=env, check=True)
    (found,) = (home / "bentos").rglob("bento.yaml")
    (home / "Dockerfile").rename(found.parent / "Dockerfile")
    return found.parent


def asked_for_by(name: str) -> set[str]:
    """The packages for which the lock has this one, by its `# via` comments."""
    (entry,) = re.findall(
        rf"^{name}==.*\n(?:    --hash.*\n)+((?:    #.*\n)+)",
        (ROOT / "requirements.lock").read_text(),
        re.MULTILINE,
    )
    return set(re.findall(r"[\w-]+", entry.replace("via", "")))


@pytest.fixture(scope="module")
def image(bento: Path) -> Image:
    image = Image({})
    for step in instructions((bento / "Dockerfile").read_text()):
        image.take(step)
    return image


def runs(bento: Path) -> list[Instruction]:
    steps = instructions((bento / "Dockerfile").read_text())
    return [step for step in steps if step.name == "RUN"]


def test_the_image_is_what_the_documentation_says(image: Image) -> None:
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", image.base)
    assert image.base in (ROOT / "docs" / "how-to" / "run-in-a-container.md").read_text()
    assert image.exposed == ["3000"]
    assert image.user == "bentoml"
    assert image.healthcheck is not None
    assert "/readyz" in image.healthcheck[-1]
    assert image.env["BENTOML_HOME"] == "/data/bento"
    assert image.env["VISIONLOOP_HOME"] == "/data/home"
    assert image.env["PYTHONPATH"] == f"{image.env['BENTO_PATH']}/src"


def test_its_commands_are_a_shell_s_and_install_no_compiler(bento: Path) -> None:
    commands = [step.command() for step in runs(bento)]
    assert len(commands) >= 5
    for command in commands:
        subprocess.run([*command[:1], "-n", *command[1:]], check=True)
        assert not re.search(r"\b(build-essential|gcc|g\+\+|git)\b", command[-1])


def test_what_it_copies_is_in_the_bento(bento: Path) -> None:
    steps = list(instructions((bento / "Dockerfile").read_text()))
    sources = [word for step in steps if step.name == "COPY" for word in step.words()[:-1]]
    assert "./src/requirements.lock" in sources
    assert all((bento / source).exists() for source in sources)
    assert (bento / "src/requirements.lock").read_bytes() == (
        ROOT / "requirements.lock"
    ).read_bytes()


def test_without_cuda_the_rest_of_the_lock_is_installed(bento: Path) -> None:
    (program,) = re.findall(r"awk '([^']+)'", (bento / "Dockerfile").read_text())
    rest = subprocess.run(
        ["awk", program, "requirements.lock"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    entries = locked("requirements.lock")
    kept = {line.split("==")[0] for line in rest.splitlines() if line[:1].isalnum()}
    left_out = {entry.name for entry, _ in entries} - kept
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= left_out
    others = left_out - {"torch", "torchvision"}
    needed_by = {name: asked_for_by(name) - left_out for name in sorted(others)}
    assert {name: by for name, by in needed_by.items() if by} == {}
    hashes = [each for entry, found in entries if entry.name in kept for each in found]
    assert rest.count("--hash=") == len(hashes)
