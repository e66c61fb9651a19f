"""The generated pages say what the code says now."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from docs_reference.error_page import errors
from docs_reference.metric_page import series
from docs_reference.pages import FOLDER, NOTE, pages
from docs_reference.settings_page import settings_page
from errors import VisionLoopError
from settings import Settings
from tests.support.serving import Server

STALE = "docs/reference/{} is stale: run `make reference`"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_no_page_is_stale(made: dict[str, str]) -> None:
    for name, text in made.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, STALE.format(name)


def test_a_page_that_is_no_longer_generated_does_not_stay(made: dict[str, str]) -> None:
    marked = {file.name for file in FOLDER.glob("*.md") if file.read_text().startswith(NOTE[:30])}
    assert marked == set(made)


def test_every_setting_is_a_row() -> None:
    text = settings_page()
    rows = [name for name in Settings.model_fields if f"| `VISIONLOOP_{name.upper()}` |" in text]
    assert rows == list(Settings.model_fields)
    assert "| `VISIONLOOP_DEVICE` | `auto` · `cpu` · `cuda` | `auto` |" in text
    assert "| `VISIONLOOP_KEEP_BELOW` | number, at least 0, at most 1 | `0` |" in text


def test_every_error_code_is_a_row() -> None:
    def kinds(kind: type[VisionLoopError]) -> Iterator[type[VisionLoopError]]:
        yield kind
        for below in kind.__subclasses__():
            yield from kinds(below)

    text = errors()
    ours = {kind.code for kind in kinds(VisionLoopError) if kind.__module__ == "errors"}
    assert len(ours) > 10
    assert [code for code in ours if f"| `{code}` | " not in text] == []


def test_every_series_of_a_server_is_a_row(server: Server) -> None:
    answer = httpx.get(f"{server.url}/metrics", headers={"Accept": "text/plain"}, timeout=60)
    seen = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
    known = {one.name for one in series()}
    ours = {name for name in seen if name.startswith("visionloop_")}
    assert ours
    assert ours <= known | {f"{name}_total" for name in known}


def test_every_call_and_every_command_is_a_heading(made: dict[str, str]) -> None:
    assert "### `POST /infer`" in made["rest.md"]
    assert "## InferAnswer" in made["schemas.md"]
    assert "### `visionloop models rollback`" in made["commands.md"]
    assert "### `visionloop training start incremental`" in made["commands.md"]
    assert "| `make serve` |" in made["commands.md"]


def test_formats_say_what_was_seen(made: dict[str, str]) -> None:
    rows = {line.split(" | ")[0]: line for line in made["formats.md"].splitlines()}
    assert rows["| box"].count("kept") == 6
    assert rows["| class of the image"].count("refused") == 2  # COCO, VOC
    assert rows["| score"].count("lost") == 3  # YOLO, VOC, CVAT
