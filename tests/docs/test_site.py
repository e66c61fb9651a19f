"""The documentation builds strictly, and its pages load nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.serving import ROOT

LOADING = {  # tag → attributes whose address a browser fetches by itself
    "audio": {"src"},
    "embed": {"src"},
    "iframe": {"src"},
    "img": {"src", "srcset"},
    "input": {"src"},
    "link": {"href"},
    "object": {"data"},
    "script": {"src"},
    "source": {"src", "srcset"},
    "video": {"poster", "src"},
}
NAMED_ONLY = {"canonical", "next", "prev"}  # links of the head that nobody fetches
STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?\s*(?:https?:)?//[^)'\"]+")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


class Loads(HTMLParser):
    """What a page has its browser fetch, and the places on it."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and values.get("rel") in NAMED_ONLY:
            return
        self.addresses += [values[name] for name in LOADING.get(tag, ()) if name in values]


def loads(site: Path) -> Iterator[tuple[Path, str]]:
    for page in site.rglob("*.html"):
        reader = Loads()
        reader.feed(page.read_text(encoding="utf-8"))
        yield from ((page, address) for address in reader.addresses)


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    found = list(loads(site))
    assert len(found) > 50
    assert [(page.name, one) for page, one in found if urlsplit(one).netloc] == []


def test_styles_load_nothing_from_other_hosts(site: Path) -> None:
    styles = list(site.rglob("*.css"))
    assert styles
    assert [(one.name, found) for one in styles if (found := STYLE.findall(one.read_text()))] == []


def test_what_pages_load_is_there(site: Path) -> None:
    for page, address in loads(site):
        parts = urlsplit(address)
        if parts.path and not parts.scheme and not parts.path.startswith("/"):
            assert (page.parent / unquote(parts.path)).exists(), f"{page}: {address}"


def test_every_page_is_there(site: Path) -> None:
    pages = (ROOT / "docs").rglob("*.md")
    names = [page.relative_to(ROOT / "docs").with_suffix(".html") for page in pages]
    assert len(names) > 40
    assert [name for name in names if not (site / name).exists()] == []
