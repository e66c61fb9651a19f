"""Paths as clients write them: what no file system can have is theirs to mend, never our fault."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataset.allowed_roots import confine, real_path
from dataset.inspection import inspect
from dataset.store import DatasetStore
from errors import Forbidden, ValidationFailed, VisionLoopError
from settings import Settings
from tests.support.data_sets import Shapes

LONG = "a" * 4000
DEEP = "a/" * 3000
HALF = "\ud800"
WRONG = [LONG, f"/{LONG}", f"{DEEP}x", f"x/{LONG}/data.yaml", "a\0b", HALF, f"{HALF}/data.yaml",
         "loop/data.yaml", "loop", "file.txt/data.yaml", "~", "~/data", "~root/data.yaml",
         "..", "../..", "./../.", "a/../../..", "\udc80", "." * 300, "%00", "con", "//",
         "/"]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    data = tmp_path / "data"
    data.mkdir()
    (data / "loop").symlink_to("loop")
    (data / "file.txt").touch()
    return DatasetStore(Settings(home=tmp_path / "home", data_roots=(data,)))


def is_the_clients(call: Callable[[], object]) -> bool:
    try:
        call()
    except VisionLoopError as error:
        error.message.encode()  # can be sent
        return 400 <= error.status < 500 and len(error.message) < 700
    return False


@pytest.mark.parametrize("path", WRONG)
def test_a_reference_to_a_data_set_is_refused(store: DatasetStore, path: str) -> None:
    for written in (path, os.path.join(store.roots[1], path)):
        assert is_the_clients(partial(store.open, written))


@pytest.mark.parametrize("path", WRONG)
@pytest.mark.parametrize("key", ["path", "train", "val", "list"])
def test_a_path_in_a_description_or_list_is_refused_or_told(
    shapes: Shapes, key: str, path: str
) -> None:
    folder = shapes()
    (folder / "loop").symlink_to("loop")
    (folder / "file.txt").touch()
    written = path.encode("utf-8", "surrogatepass")
    if key == "list":
        (folder / "list.txt").write_bytes(written + b"/x.jpg\n")
        text = b"train: list.txt\nval: images/val\nnames: [a, b, c]\n"
    else:
        base = {b"path": b".", b"train": b"images/train", b"val": b"images/val"}
        base[key.encode()] = b"'" + written + b"'"
        text = b"".join(name + b": " + value + b"\n" for name, value in base.items())
        text += b"names: [a, b, c]\n"
    (folder / "data.yaml").write_bytes(text)

    def look() -> None:
        inspect(folder, None, [folder.resolve()])

    try:
        look()
    except VisionLoopError:
        assert is_the_clients(look)


@given(st.text(max_size=300))
@example(LONG)
@example(DEEP)
@example(HALF)
@example("\0")
def test_any_text_is_a_path_or_refused(text: str) -> None:
    path = os.path.join("/srv/data", text)
    for call in (partial(real_path, path), partial(confine, path, [Path("/srv/data")])):
        with suppress(Forbidden, ValidationFailed):
            assert call().is_absolute()
