from __future__ import annotations

import random
from pathlib import Path

import pytest

from storage.object_trees import ObjectTrees
from tests.support.object_store import StoreServer


@pytest.fixture
def trees(any_store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> ObjectTrees:
    """An empty place in each of the stores."""
    for name, value in any_store.environment.items():
        monkeypatch.setenv(name, value)
    return ObjectTrees(any_store.new_url())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tree with all that a tree can have: folders, an empty one, long names, no bytes, many."""
    root = tmp_path / "tree"
    (root / "images" / "ä b").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "model.json").write_text("{}")
    (root / "none.txt").touch()
    (root / "images" / "ä b" / ("交通" * 30 + ".jpg")).write_bytes(b"\xff\xd8")
    (root / "images" / "block.bin").write_bytes(bytes(range(256)) * 2)
    (root / "large.bin").write_bytes(random.Random(7).randbytes(20 * 2**20 + 3))
    return root


def content(folder: Path) -> dict[str, bytes | None]:
    """Path in the folder → the file's bytes; None for a folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }
