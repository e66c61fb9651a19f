"""Which place trees have, and that nothing changes without a store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from setting_values import split_store_url
from settings import Settings
from storage.place import open_trees
from storage.trees import FolderTrees, TreeNotFound

ROOT = Path(__file__).parents[2]


def test_without_a_store_a_tree_is_its_folder(tmp_path: Path) -> None:
    trees = open_trees(Settings(home=tmp_path / "home"))
    assert isinstance(trees, FolderTrees)
    assert not trees.shared
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "file").touch()
    assert trees.put(folder, "models/a/1") == ""
    trees.get("models/a/1", folder)
    trees.delete("models/a/1")
    assert [path.name for path in folder.iterdir()] == ["file"]
    with pytest.raises(TreeNotFound):
        trees.get("models/a/2", tmp_path / "missing")
    with pytest.raises(TreeNotFound):
        trees.get_bytes("models/a/promoted")
    assert not trees.exists("models/a/1")
    assert trees.list("models") == trees.list_bytes("models") == []
    assert {path.name for path in tmp_path.iterdir()} == {"tree"}


def test_one_store_a_process(store_url: str, tmp_path: Path) -> None:
    first = open_trees(Settings(home=tmp_path, store_url=store_url))
    assert first.shared
    assert open_trees(Settings(home=tmp_path / "other", store_url=store_url + "/")) is first


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://visionloop", ("visionloop", "")),
        ("s3://visionloop/", ("visionloop", "")),
        ("s3://vision.loop-2/a/b_c", ("vision.loop-2", "a/b_c")),
    ],
)
def test_places(url: str, parts: tuple[str, str]) -> None:
    assert split_store_url(url) == parts


@pytest.mark.parametrize(
    "url",
    ["visionloop", "gs://visionloop", "s3://", "s3://ab", "s3://Upper", "s3://key:secret@bucket",
     "s3://bucket/a//b", "s3://bucket/../b", "s3://bucket/a?b=c", "http://127.0.0.1:9000/bucket"],
)  # fmt: skip
def test_no_places(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="write s3://BUCKET or s3://BUCKET/PREFIX"):
        Settings(home=tmp_path, store_url=url)


def test_obstore_is_imported_only_with_a_store() -> None:
    code = (
        "import sys, storage.place as t; from settings import Settings; t.open_trees(Settings()); "
        "sys.exit(any(m.startswith(('obstore', 'storage.object')) for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=600)
