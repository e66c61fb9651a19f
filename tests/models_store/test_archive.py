"""A version carried to another machine as one file; hostile and damaged archives."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from errors import BackendTimeout, Conflict, InvalidModelFile, ValidationFailed
from models_store import archive
from models_store.archive import export_archive, import_archive
from models_store.export import export_onnx
from models_store.foreign.file_type import check_checkpoint
from models_store.registry import Registry
from tests.support.seeds import rng

Publish = Callable[..., str]
Files = dict[str, bytes]

export_in_child = archive._export


@pytest.fixture
def exported(registry: Registry, model_folder: Path, tmp_path: Path) -> Path:
    model = registry.publish(model_folder, "signs", {"kind": "train", "job_id": "7"}, {"f1": 0.5})
    path = export_archive(model, tmp_path)
    assert path.name == f"signs-{model.version}.zip"
    return path


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is made here instead of in a child that has to import torch."""
    monkeypatch.setattr(archive, "_export", lambda folder, _: export_onnx(folder))


def test_round_trip(registry: Registry, exported: Path) -> None:
    original = registry.get("signs")
    assert import_archive(registry, exported) == original  # it is there already
    carried = import_archive(registry, exported, name="carried", promote=True)
    assert carried.description == original.description
    assert carried.content == original.content
    assert carried.metrics == {"f1": 0.5}
    assert carried.promoted
    assert carried.source["kind"] == "import"
    assert carried.source["origin"]["id"] == original.id
    assert carried.source["origin"]["source"] == {"kind": "train", "job_id": "7"}
    for name in ("model.json", "model.safetensors", "model.onnx"):
        assert (carried.path / name).read_bytes() == (original.path / name).read_bytes()


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ({"sign": 3, "light": 0}, {"sign": 3, "light": 0}),
        ({}, {}),
        ({"sign": "3"}, {}),
        ({"sign": -1}, {}),
        ({"sign": True}, {}),
        ([3], {}),
    ],
)
def test_the_counts_that_drift_is_measured_against_come_along(
    registry: Registry, exported: Path, tmp_path: Path, noted: Any, expected: dict[str, int]
) -> None:
    archived = rezipped(exported, manifest(source={"kind": "train", "class_counts": noted}))
    carried = import_archive(registry, archived, name="carried")
    assert carried.class_counts == expected
    again = import_archive(registry, export_archive(carried, tmp_path / "again.zip"), name="again")
    assert again.class_counts == expected


def test_what_is_not_ready_in_time_is_never_published(
    registry: Registry, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_export", export_in_child)
    with pytest.raises(BackendTimeout, match=r"within 0\.2 seconds"):
        import_archive(registry, exported, name="carried", timeout=0.2)
    registry.refresh()
    assert [model.name for model in registry.list()] == ["signs"]


def test_an_existing_file_is_not_overwritten(registry: Registry, exported: Path) -> None:
    model = registry.get("signs")
    with pytest.raises(Conflict, match="exists already"):
        export_archive(model, exported)
    assert export_archive(model, exported, overwrite=True) == exported
    with pytest.raises(ValidationFailed):
        import_archive(registry, exported, name="A B")


def test_an_archive_given_to_import_is_named(exported: Path) -> None:
    with pytest.raises(InvalidModelFile, match="with import-archive"):
        check_checkpoint(exported)


def rezipped(path: Path, change: Callable[[Files], object]) -> Path:
    """The archive with its files changed by a function."""
    with zipfile.ZipFile(path) as source:
        files = {name: source.read(name) for name in source.namelist()}
    change(files)
    target = path.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as copy:
        for name, data in files.items():
            copy.writestr(name, data)
    return target


def manifest(**changes: Any) -> Callable[[Files], object]:
    def change(files: Files) -> None:
        content = json.loads(files["manifest.json"])
        files["manifest.json"] = json.dumps({**content, **changes}).encode()

    return change


def rename(old: str, new: str) -> Callable[[Files], object]:
    return lambda files: files.update({new: files.pop(old)})


ENTRY = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.pop("manifest.json"), "no manifest.json"),
        (lambda f: f.update({"manifest.json": b"{"}), "manifest is wrong"),
        (lambda f: f.update({"manifest.json": b" " * (2 * 1024**2)}), "larger than allowed"),
        (manifest(format="other"), "wrong at format"),
        (manifest(extra=1), "wrong at extra"),
        (manifest(files={"model.json": ENTRY}), "lists model.json"),
        (manifest(files={"../../evil": ENTRY, "model.json": ENTRY}), "expected model.json"),
        (lambda f: f.update({"../evil": b"x"}), r"unexpected file: '\.\./evil'"),
        (lambda f: f.update({"/etc/evil": b"x"}), "unexpected file"),
        (lambda f: f.update({"best.pt": b"x"}), "unexpected file"),
        (lambda f: f.pop("model.safetensors"), "contains a file twice, or a file is missing"),
        (lambda f: f.update({"model.safetensors": b"x"}), "altered"),
        (lambda f: f.update({"model.json": f["model.json"] + b" "}), "altered"),
        (
            lambda f: f.update({"model.safetensors": f["model.safetensors"][:-1] + b"x"}),
            "altered",
        ),
    ],
)
def test_an_altered_archive_is_refused(
    registry: Registry, exported: Path, change: Callable[[Files], object], sentence: str
) -> None:
    with pytest.raises(InvalidModelFile, match=sentence):
        import_archive(registry, rezipped(exported, change), name="carried")
    assert [model.name for model in registry.list()] == ["signs"]


@pytest.mark.parametrize(
    ("block", "sentence"), [(bytes(1024**2), "more than 200 times"), (None, "altered")]
)
def test_a_bomb_is_refused_by_its_ratio_or_stops_at_the_declared_size(
    registry: Registry, exported: Path, block: bytes | None, sentence: str
) -> None:
    block = block or rng(0).bytes(1024**2)
    bomb = exported.with_name("bomb.zip")
    with zipfile.ZipFile(exported) as source, zipfile.ZipFile(bomb, "w", 8) as target:
        for name in ("manifest.json", "model.json"):
            target.writestr(name, source.read(name))
        with target.open("model.safetensors", "w") as file:
            for _ in range(64):
                file.write(block)
    with pytest.raises(InvalidModelFile, match=sentence):
        import_archive(registry, bomb, name="carried")


@pytest.mark.parametrize("data", [b"", b"x" * 50, b"PK\x03\x04" + b"x" * 50])
def test_a_file_that_is_no_zip_is_refused(registry: Registry, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InvalidModelFile, match="cannot be read as a zip"):
        import_archive(registry, tmp_path / "a.zip")
    with pytest.raises(InvalidModelFile, match="cannot be read"):
        import_archive(registry, tmp_path / "none.zip")


def test_damaged_compressed_data_is_refused(registry: Registry, exported: Path) -> None:
    data = bytearray(exported.read_bytes())
    info = zipfile.ZipFile(exported).getinfo("model.safetensors")
    name, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
    start = info.header_offset + 30 + name + extra
    data[start + 100 : start + 400] = bytes(300)
    exported.write_bytes(data)
    with pytest.raises(InvalidModelFile, match=r"damaged at model\.safetensors|altered"):
        import_archive(registry, exported, name="carried")


def signed(path: Path, name: str, data: bytes) -> Path:
    """One file replaced, and the manifest made to agree."""
    import hashlib

    def change(files: Files) -> None:
        files[name] = data
        content = json.loads(files["manifest.json"])
        content["files"][name] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        files["manifest.json"] = json.dumps(content).encode()

    return rezipped(path, change)


def test_a_consistent_archive_is_still_not_trusted(
    registry: Registry, exported: Path, model_folder: Path
) -> None:
    description = json.loads((model_folder / "model.json").read_text())
    description["architecture"]["activation"] = "__import__('os').abort()"
    with pytest.raises(InvalidModelFile, match="activation"):
        import_archive(
            registry, signed(exported, "model.json", json.dumps(description).encode()), name="b"
        )
    with pytest.raises(InvalidModelFile, match=r"model\.json is not valid"):
        import_archive(registry, signed(exported, "model.json", b"{}"), name="b")
    with pytest.raises(InvalidModelFile, match="damaged"):
        import_archive(registry, signed(exported, "model.safetensors", b"x" * 99), name="b")
    assert [model.name for model in registry.list()] == ["signs"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metrics": {"accuracy": float("inf")}}, "wrong at metrics"),
        ({"metrics": {"accuracy": float("nan")}}, "wrong at metrics"),
        ({"metrics": {"accuracy": {"deep": 1}}}, "wrong at metrics"),
        ({"metrics": {"accuracy": "x" * 5000}}, "wrong at metrics"),
        ({"metrics": {"a b\n": 1}}, "wrong at metrics"),
        ({"metrics": {f"m{i}": 1 for i in range(500)}}, "wrong at metrics"),
        ({"source": {"kind": "x", "deep": [{"a": float("-inf")}]}}, "wrong at source"),
        ({"version": "1" * 5000}, "wrong at version"),
        ({"created_at": "1" * 5000}, "wrong at created_at"),
    ],
)
def test_a_manifest_holds_finite_numbers_and_short_texts(
    registry: Registry, exported: Path, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidModelFile, match=sentence):
        import_archive(registry, rezipped(exported, manifest(**change)), name="b")
    huge = rezipped(exported, lambda files: files.update({"manifest.json": files["manifest.json"]
                    .replace(b'"f1": 0.5', b'"f1": 1e999')}))  # fmt: skip
    with pytest.raises(InvalidModelFile, match="wrong at metrics"):
        import_archive(registry, huge, name="b")
    assert [model.name for model in registry.list()] == ["signs"]


def test_metrics_with_facts_about_their_evaluation_are_imported(
    registry: Registry, model_folder: Path, tmp_path: Path
) -> None:
    metrics = {"mAP50": 0.5, "images": 3.0, "forgotten": None, "split": "val", "dataset": "/a b"}
    model = registry.publish(model_folder, "signs", {"kind": "train"}, metrics)
    carried = import_archive(registry, export_archive(model, tmp_path), name="carried")
    assert carried.metrics == metrics


def longer(names: list[str], first: str) -> list[str]:
    return [first, *names[1:]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: {"names": longer(d["names"], "x" * 201)}, "'names'"),
        (lambda d: {"names": longer(d["names"], "a\nb")}, "'names'"),
        (lambda d: {"names": longer(d["names"], "a\0b")}, "'names'"),
        (lambda d: {"names": longer(d["names"], "  ")}, "'names'"),
        (lambda d: {"names": longer(d["names"], d["names"][1])}, "'names' twice"),
        (lambda _: {"names": []}, "'names' has 0 names"),
        (lambda _: {"keypoint_shape": [10**9, 3]}, "'keypoint_shape'"),
        (lambda _: {"keypoint_names": ["a"]}, "'keypoint_names'"),
        (lambda _: {"task": "pose"}, "'keypoint_shape'"),
        (lambda _: {"task": "pose", "keypoint_shape": [1, 4]}, "'keypoint_shape'"),
        (lambda _: {"norm_eps": 1e300}, "'norm_eps'"),
        (lambda _: {"channels": 10**9}, "'channels'"),
        (lambda _: {"stride": 10**9}, "'stride'"),
        (lambda _: {"stride": 0}, "'stride'"),
        (lambda _: {"description": "x" * 2001}, "'description'"),
        (lambda d: {"preprocessing": {**d["preprocessing"], "std": [1, 1, 1e-300]}}, "'std'"),
        (lambda d: {"preprocessing": {**d["preprocessing"], "std": [1, 1, 1e300]}}, "'std'"),
        (lambda d: {"preprocessing": {**d["preprocessing"], "mean": [0, 0, -1e300]}}, "'mean'"),
        (lambda d: {"architecture": {**d["architecture"], "a": [float("inf")]}}, "architecture"),
    ],
)
def test_a_description_that_is_not_plausible_is_refused(
    registry: Registry, exported: Path, model_folder: Path, change: Any, sentence: str
) -> None:
    description = json.loads((model_folder / "model.json").read_text())
    data = json.dumps({**description, **change(description)}).encode()
    with pytest.raises(InvalidModelFile, match=f"not plausible.*{sentence}"):
        import_archive(registry, signed(exported, "model.json", data), name="b")
    assert [model.name for model in registry.list()] == ["signs"]


def test_a_full_disk_leaves_no_half_archive(
    registry: Registry, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = registry.get(publish())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        export_archive(model, folder / "a.zip")
    assert list(folder.iterdir()) == []


def test_reading_needs_no_seeking_back(exported: Path) -> None:
    assert zipfile.ZipFile(io.BytesIO(exported.read_bytes())).testzip() is None
