"""What the texts name is there: pages, files, anchors of the README, make targets."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs_reference.command_pages import TARGET
from tests.support.serving import ROOT

PAGE = re.compile(r"\bdocs/[\w./-]+\.(?:md|jpg)\b")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAKE = re.compile(r"(?:`|^)(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)\b", re.MULTILINE)
TEXTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def files() -> list[Path]:
    """Every file of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]


def pages() -> Iterator[Path]:
    yield from (ROOT / "docs").rglob("*.md")
    yield from (ROOT / name for name in TEXTS)


def test_pages_that_code_and_messages_name_are_there() -> None:
    named = 0
    for file in files():
        for name in PAGE.findall(file.read_text(encoding="utf-8", errors="replace")):
            named += 1
            assert (ROOT / name).is_file(), f"{file.relative_to(ROOT)} names {name}"
    assert named > 10


@pytest.mark.parametrize("name", TEXTS)
def test_links_of_the_texts_at_the_root_lead_somewhere(name: str) -> None:
    for address in LINK.findall((ROOT / name).read_text(encoding="utf-8")):
        if "://" not in address:
            assert (ROOT / address.partition("#")[0]).exists(), f"{name}: {address}"


def test_make_targets_that_the_texts_name_are_there() -> None:
    targets = {name for name, _ in TARGET.findall((ROOT / "Makefile").read_text())}
    named = {(p.name, word) for p in pages() for word in MAKE.findall(p.read_text())}
    assert len(named) > 10
    assert {one for one in named if one[1] not in targets} == set()


def test_every_target_of_make_is_in_its_help() -> None:
    text = (ROOT / "Makefile").read_text()
    (listed,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    phony = set(listed.replace("\\", " ").split()) - {"named"}
    assert phony == {name for name, _ in TARGET.findall(text)}


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
