"""Trees in S3, against real servers: moto, and JuiceFS' gateway in `make test-store`."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest

from errors import (
    InsufficientStorage,
    StoreDamaged,
    StoreRefused,
    StoreUnavailable,
    ValidationFailed,
)
from files import delete_abandoned
from storage import object_trees
from storage.object_trees import ObjectTrees
from storage.tar_stream import pack
from storage.trees import TreeNotFound
from tests.storage.conftest import content
from tests.support.object_store import BUCKET, StoreServer, free_port, running_moto
from tests.support.patience import wait_until


def test_what_was_put_is_got(trees: ObjectTrees, folder: Path, tmp_path: Path) -> None:
    digest = trees.put(folder, "models/signs/01a")
    assert trees.exists("models/signs/01a")
    copy = tmp_path / "home" / "copy"
    trees.get("models/signs/01a", copy, digest)
    assert content(copy) == content(folder)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_tree_that_is_not_there(trees: ObjectTrees, tmp_path: Path) -> None:
    assert not trees.exists("models/signs/01a")
    trees.delete("models/signs/01a")
    with pytest.raises(TreeNotFound):
        trees.get("models/signs/01a", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_put_and_get_replace_the_former_tree(
    trees: ObjectTrees, folder: Path, tmp_path: Path
) -> None:
    first = trees.put(folder, "jobs/1")
    (folder / "large.bin").unlink()
    (folder / "new").write_text("new")
    assert trees.put(folder, "jobs/1") != first
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "old").touch()
    trees.get("jobs/1", copy)
    assert content(copy) == content(folder)


def test_keys_are_listed_by_whole_words_and_deleted(trees: ObjectTrees, folder: Path) -> None:
    (folder / "large.bin").unlink()
    for key in ("models/signs/2", "models/signs/1", "models/signs-b/1", "jobs/1"):
        trees.put(folder, key)
    trees.put_bytes("models/signs/3", b"no tree")
    assert trees.list("models/signs") == ["models/signs/1", "models/signs/2"]
    assert trees.list("models") == ["models/signs-b/1", "models/signs/1", "models/signs/2"]
    trees.delete("models/signs/1")
    assert trees.list("models/signs") == ["models/signs/2"]
    assert trees.list("evaluations") == []


def test_small_objects(trees: ObjectTrees) -> None:
    with pytest.raises(TreeNotFound):
        trees.get_bytes("models/signs/promoted")
    trees.put_bytes("models/signs/promoted", b"1")
    trees.put_bytes("models/signs/promoted", b"2")
    assert trees.get_bytes("models/signs/promoted") == b"2"
    assert trees.list_bytes("models") == ["models/signs/promoted"]
    trees.delete_bytes("models/signs/promoted")
    trees.delete_bytes("models/signs/promoted")
    assert trees.list_bytes("models") == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "ä", "a b", "a" * 601]
)
def test_invalid_keys(trees: ObjectTrees, folder: Path, key: str) -> None:
    for call in (trees.exists, trees.delete, trees.get_bytes, trees.list):
        with pytest.raises(ValidationFailed):
            call(key)
    with pytest.raises(ValidationFailed):
        trees.put(folder, key)


def test_another_tree_than_expected_is_refused(
    trees: ObjectTrees, folder: Path, tmp_path: Path
) -> None:
    trees.put(folder, "jobs/1")
    with pytest.raises(StoreDamaged, match="jobs/1 in the store is damaged"):
        trees.get("jobs/1", tmp_path / "copy", "0" * 64)
    assert {path.name for path in tmp_path.iterdir()} == {"tree"}


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "no tar"])
def test_a_damaged_object_is_refused_and_the_folder_stays(
    trees: ObjectTrees, folder: Path, tmp_path: Path, damage: str
) -> None:
    trees.put(folder, "jobs/1")
    data = bytearray(bytes(obstore.get(trees._store, "jobs/1.tar").bytes()))
    if damage == "changed":
        data[10_000_000] ^= 1
    data = {"empty": data[:0], "cut": data[: 2**24], "no tar": data[-999_999:]}.get(damage, data)
    obstore.put(trees._store, "jobs/1.tar", bytes(data), use_multipart=False)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "old").touch()
    with pytest.raises(StoreDamaged):
        trees.get("jobs/1", copy)
    assert content(copy) == {"old": b""}
    assert {path.name for path in tmp_path.iterdir()} == {"tree", "copy"}


def test_nothing_is_visible_of_a_put_that_fails(trees: ObjectTrees, folder: Path) -> None:
    os.mkfifo(folder / "zz-pipe")  # after large.bin, which is uploaded in parts
    with pytest.raises(ValidationFailed):
        trees.put(folder, "jobs/1")
    assert trees.list("jobs") == []


def test_a_full_disk(
    trees: ObjectTrees, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.put(folder, "jobs/1")

    def full(source: object, target: Path) -> str:
        (target / "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(object_trees, "unpack", full)
    with pytest.raises(InsufficientStorage):
        trees.get("jobs/1", tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"tree"}


def calls(trees: ObjectTrees, folder: Path, into: Path) -> tuple[Callable[[], object], ...]:
    """Calls of a store, each of which asks it for something."""
    return (
        trees.check,
        lambda: trees.put(folder, "a"),
        lambda: trees.get("a", into / "copy"),
        lambda: trees.exists("a"),
        lambda: trees.list("a"),
    )


def test_a_store_without_the_bucket(trees: ObjectTrees, folder: Path, tmp_path: Path) -> None:
    other = ObjectTrees("s3://visionloop-nowhere/prefix")
    for call in (*calls(other, folder, tmp_path), lambda: other.get_bytes("a")):
        with pytest.raises(StoreRefused, match="the bucket does not exist") as caught:
            call()
        assert caught.value.retry_after
    trees.check()


@pytest.mark.store
def test_a_wrong_secret(juicefs: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in juicefs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    trees = ObjectTrees(juicefs.new_url())
    for call in (trees.check, lambda: trees.exists("a"), lambda: trees.put_bytes("a", b"")):
        with pytest.raises(StoreRefused, match="AWS_SECRET_ACCESS_KEY is wrong"):
            call()


def test_a_store_that_cannot_be_reached(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_trees.RETRIES, "max_retries", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    trees = ObjectTrees(f"s3://{BUCKET}/prefix")
    for call in (*calls(trees, folder, tmp_path), lambda: trees.delete("a")):
        with pytest.raises(StoreUnavailable) as caught:
            call()
        assert caught.value.retry_after
        assert "127.0.0.1" not in caught.value.message
    assert {path.name for path in tmp_path.iterdir()} == {"tree"}


def test_http_is_refused_unless_the_endpoint_says_so(
    moto: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_trees.RETRIES, "max_retries", 0)
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    ObjectTrees(moto.new_url()).check()
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.address.replace("http:", "https:"))
    with pytest.raises(StoreUnavailable):
        ObjectTrees(moto.new_url()).check()


CHILD = """
import sys
from pathlib import Path
from storage import tar_stream
from storage.object_trees import ObjectTrees
from tests.support.patience import PATIENCE
import threading
calls = []
def slow(self, *given, _of=getattr(tar_stream._Hashing, sys.argv[1])):
    calls.append(1)
    if len(calls) == 18:  # 2 of 20 MiB are missing, parts are on their way
        print("half", flush=True)
        threading.Event().wait(PATIENCE)
    return _of(self, *given)
setattr(tar_stream._Hashing, sys.argv[1], slow)
trees = ObjectTrees(sys.argv[2])
getattr(trees, {"write": "put", "read": "get"}[sys.argv[1]])(*eval(sys.argv[3], {"Path": Path}))
"""


@pytest.mark.parametrize("way", ["write", "read"])
def test_nothing_is_left_half_by_a_process_that_is_killed(
    trees: ObjectTrees, folder: Path, tmp_path: Path, way: str
) -> None:
    copy = tmp_path / "copy"
    arguments = (folder, "jobs/1") if way == "write" else ("jobs/1", copy)
    if way == "read":
        trees.put(folder, "jobs/1")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, way, trees.url, repr(arguments).replace("PosixPath", "Path")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"half\n"
        finally:
            child.kill()
    if way == "write":
        assert trees.list("jobs") == []
        trees.put(folder, "jobs/1")
        assert trees.list("jobs") == ["jobs/1"]
    else:
        assert not copy.exists()
        assert wait_until(lambda: delete_abandoned(tmp_path)) == 1
        trees.get("jobs/1", copy)
        assert content(copy) == content(folder)


def test_a_store_that_goes_away_in_the_middle_of_an_upload(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_trees.RETRIES, "max_retries", 0)
    with running_moto() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        trees = ObjectTrees(server.new_url())

        def interrupted(*given: Any) -> str:
            digest = pack(*given)
            server.process.kill()
            server.process.wait()
            return digest

        monkeypatch.setattr(object_trees, "pack", interrupted)
        with pytest.raises(StoreUnavailable):
            trees.put(folder, "a")


def test_a_store_that_comes_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_trees.RETRIES, "max_retries", 0)
    with running_moto() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        trees = ObjectTrees(server.new_url())
        trees.put(folder, "a")
        server.process.send_signal(signal.SIGSTOP)
        monkeypatch.setitem(object_trees.TIMEOUTS, "timeout", "1s")
        try:
            with pytest.raises(StoreUnavailable):
                ObjectTrees(trees.url).get("a", tmp_path / "copy")
        finally:
            server.process.send_signal(signal.SIGCONT)
        trees.get("a", tmp_path / "copy")
    with pytest.raises(StoreUnavailable):
        trees.get("a", tmp_path / "copy")
    assert content(tmp_path / "copy") == content(folder)


def test_a_list_can_leave_out_what_was_just_written(trees: ObjectTrees, folder: Path) -> None:
    trees.put(folder / "images", "a/old")
    trees.put_bytes("a/old", b"x")
    assert trees.list("a", 3600) == trees.list_bytes("a", 3600) == []
    wait_until(lambda: trees.list("a", 0.5) == trees.list_bytes("a", 0.5) == ["a/old"])
