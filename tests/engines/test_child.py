"""One export after another, made and compared in this process."""

from __future__ import annotations

import ast
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml

from disk_space import is_disk_full
from engines.child import ExportTask, make
from engines.network import Network
from engines.options import ExportRequest, Format, resolve
from engines.parity import NotTheSame
from engines.store import ExportRecord
from errors import Conflict, InsufficientStorage, ModelNotFound, ValidationFailed
from models_store.description import DESCRIPTION_FILE, WEIGHTS_FILE, ModelDescription
from models_store.export import export_onnx
from models_store.foreign.importer import import_model
from models_store.registry import Registry
from models_store.weights import load_weights, save_weights
from settings import Settings
from tests.support.full_disk import fill, small_disk
from tests.support.small_models import small_description, write_model

Folder = Callable[[str], Path]
Make = Callable[..., ExportRecord]

KINDS = ("detect", "segment", "pose", "classify", "mobilenet")
CONTENT = "0" * 64


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", device="cpu")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "home" / "exports" / "small" / "1"


@pytest.fixture
def export(settings: Settings, target: Path) -> Make:
    """Make an export of a model folder. Returns its record."""

    def _export(folder: Path, format: str, **options: Any) -> ExportRecord:
        request = ExportRequest.model_validate({"format": format, **options})
        task = ExportTask(
            folder=folder, model_id="small:1", content=CONTENT, target=target, request=request
        )
        return make(task, settings, lambda step, share: None)

    return _export


def wanted(folder: Path) -> dict[str, Any]:
    """What the metadata must say of a model."""
    description = ModelDescription.load(folder)
    found: dict[str, Any] = {
        "names": dict(enumerate(description.names)),
        "task": description.task,
        "stride": description.stride,
        "imgsz": [description.imgsz] * 2,
        "batch": 1,
        "channels": 3,
        "end2end": False,
    }
    if description.keypoint_shape:
        found["kpt_shape"] = list(description.keypoint_shape)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_is_the_graph_that_serves_with_names_and_a_fixed_shape(
    kind: str, model_folder: Folder, export: Make, target: Path
) -> None:
    folder = model_folder(kind)
    record = export(folder, "onnx")
    assert record.parity is not None
    assert record.parity["max_score_error"] <= 1e-6
    assert record.parity.get("max_box_error_px", 0) <= 1e-3
    graph = onnx.load(target / record.id / record.file)
    props = {entry.key: entry.value for entry in graph.metadata_props}
    expected = wanted(folder)
    literal = ("names", "imgsz", "kpt_shape", "end2end")
    shown = {k: ast.literal_eval(props[k]) if k in literal else props[k] for k in expected}
    assert shown == {k: v if k in literal else str(v) for k, v in expected.items()}
    assert ast.literal_eval(props["args"])["dynamic"] is False
    assert json.loads(props["visionloop"])["model"] == "small:1"
    sizes = [
        [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.graph.input, *graph.graph.output)
    ]
    assert sizes[0] == [1, 3, *expected["imgsz"]]
    assert all(size[0] == 1 and all(size) for size in sizes)
    assert [output.name for output in graph.graph.output] == ["output0", "output1"][
        : len(sizes) - 1
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("onnx", {"max_batch": 4}),
        ("onnx", {"dynamic": True}),
        ("onnx", {"imgsz": 96}),
        ("openvino", {}),
        ("torchscript", {}),
        ("torchscript", {"dynamic": True}),
        ("pt", {}),
    ],
)
def test_every_format_gives_what_the_server_gives(
    kind: str, format: str, options: dict[str, Any], model_folder: Folder, export: Make
) -> None:
    folder = model_folder(kind)
    if kind in ("classify", "mobilenet") and options.keys() & {"dynamic", "imgsz"}:
        if options.get("imgsz") != ModelDescription.load(folder).imgsz:
            with pytest.raises(ValidationFailed, match="classifier"):
                export(folder, format, **options)
        return
    parity = export(folder, format, **options).parity
    assert parity is not None
    assert parity["images"] >= 6
    assert parity["max_score_error"] <= parity["allowed_score_error"]
    assert parity["allowed_score_error"] == 1e-3
    if kind in ("detect", "segment", "pose"):
        assert parity["max_box_error_px"] <= parity["allowed_box_error_px"]
        assert parity["candidates"] >= 20


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_smaller_and_close(
    kind: str, gentle_folder: Folder, export: Make
) -> None:
    folder = gentle_folder(kind)
    for format in ("onnx", "openvino", "pt"):
        half = export(folder, format, precision="fp16")
        assert half.parity is not None
        assert 0 < half.parity["max_score_error"] <= 0.01
        assert half.parity["allowed_score_error"] == 0.02
        assert half.size_bytes < 0.8 * export(folder, format).size_bytes


def test_half_precision_that_changes_the_answers_is_not_offered(
    model_folder: Folder, export: Make, target: Path
) -> None:
    """A network whose head is sure of itself by large weights."""
    with pytest.raises(NotTheSame, match="Try another precision"):
        export(model_folder("detect"), "openvino", precision="fp16")
    assert not list(target.glob("*/*"))


def test_openvino_is_a_zip_of_the_folder_that_ultralytics_looks_for(
    model_folder: Folder, export: Make, target: Path
) -> None:
    folder = model_folder("pose")
    record = export(folder, "openvino")
    assert record.file == "small-1_openvino_model.zip"
    with zipfile.ZipFile(target / record.id / record.file) as archive:
        assert archive.namelist() == [
            f"small-1_openvino_model/{name}"
            for name in ("metadata.yaml", "small-1.bin", "small-1.xml")
        ]
        found = yaml.safe_load(archive.read("small-1_openvino_model/metadata.yaml"))
    expected = wanted(folder)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_has_the_metadata_and_takes_any_number_of_images(
    model_folder: Folder, export: Make, target: Path
) -> None:
    folder = model_folder("detect")
    record = export(folder, "torchscript")
    extra = {"config.txt": ""}
    module = torch.jit.load(str(target / record.id / record.file), _extra_files=extra)
    assert json.loads(extra["config.txt"])["task"] == "detect"
    size = ModelDescription.load(folder).imgsz
    for count in (1, 3):
        assert len(module(torch.zeros(count, 3, size, size))) == count


@pytest.mark.parametrize("kind", ["detect", "segment", "pose", "classify"])
def test_a_pt_imports_back_as_the_same_model(
    kind: str,
    model_folder: Folder,
    export: Make,
    target: Path,
    registry_of_its_own: Registry,
) -> None:
    folder = model_folder(kind)
    record = export(folder, "pt")
    back = import_model(registry_of_its_own, target / record.id / record.file)
    described = ModelDescription.load(folder)
    eps = back.description.norm_eps  # the file says what the architecture left open
    assert back.description == described.model_copy(update={"norm_eps": eps})
    ours, theirs = (load_weights(path / WEIGHTS_FILE) for path in (folder, back.path))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor.numpy(), theirs[name].numpy())


def test_a_class_branch_wider_than_its_architecture_says_stays_so(
    export: Make, target: Path, registry_of_its_own: Registry, tmp_path: Path
) -> None:
    """As of a network that was fine-tuned from one with more classes."""
    folder = tmp_path / "wide"
    wide = small_description("detect").model_copy(update={"head_width": 40})
    write_model(folder, wide, seed=0)
    export_onnx(folder)
    record = export(folder, "pt")
    back = import_model(registry_of_its_own, target / record.id / record.file)
    assert back.description.head_width == 40
    assert export(folder, "torchscript").parity is not None


def test_a_mobilenet_is_a_plain_state_dict_of_torchvision(
    model_folder: Folder, export: Make, target: Path
) -> None:
    from torchvision.models import mobilenet_v2

    folder = model_folder("mobilenet")
    record = export(folder, "pt")
    description = ModelDescription.load(folder)
    width = description.architecture["width_mult"]
    module = mobilenet_v2(num_classes=len(description.names), width_mult=width)
    content = torch.load(target / record.id / record.file, weights_only=True)
    module.load_state_dict(content)
    assert any("state dict" in note for note in record.notes)


def test_the_same_export_is_made_once(model_folder: Folder, export: Make, target: Path) -> None:
    folder = model_folder("classify")
    first = export(folder, "onnx")
    before = (target / first.id / first.file).stat()
    assert export(folder, "onnx") == first
    assert (target / first.id / first.file).stat().st_ino == before.st_ino


def test_a_file_that_lost_bytes_is_made_again(
    model_folder: Folder, export: Make, target: Path
) -> None:
    folder = model_folder("classify")
    record = export(folder, "onnx")
    path = target / record.id / record.file
    path.write_bytes(path.read_bytes()[:-10])
    assert export(folder, "onnx").size_bytes == path.stat().st_size == record.size_bytes


def test_a_file_that_is_not_the_model_is_not_offered(
    model_folder: Folder, export: Make, target: Path, tmp_path: Path
) -> None:
    """The weights say something else than the graph that serves."""
    folder = tmp_path / "changed"
    shutil.copytree(model_folder("detect"), folder)
    weights = load_weights(folder / WEIGHTS_FILE)
    last = next(name for name in weights if name.endswith("cv3.0.2.bias"))
    weights[last] += 1
    save_weights(weights, folder / WEIGHTS_FILE)
    with pytest.raises(NotTheSame, match=r"scores by up to 0\.\d+ \(allowed 0\.001\)"):
        export(folder, "pt")
    assert [path for path in target.iterdir() if not path.name.endswith(".lock")] == []


def test_a_full_disk_is_said_before_anything_is_written(
    model_folder: Folder, target: Path, settings: Settings
) -> None:
    full = settings.model_copy(update={"disk_reserve": 2**60})
    task = ExportTask(
        folder=model_folder("classify"),
        model_id="small:1",
        content=CONTENT,
        target=target,
        request=ExportRequest(format="onnx"),
    )
    with pytest.raises(InsufficientStorage):
        make(task, full, lambda step, share: None)
    assert not list(target.glob("*/*"))


@pytest.mark.parametrize("format", ["torchscript", "pt"])
def test_a_disk_that_is_full_while_it_writes_is_told(
    format: Format, model_folder: Folder, tmp_path: Path
) -> None:
    folder = model_folder("detect")
    network = Network(folder)
    options = resolve(ExportRequest(format=format), network.description)

    def write(path: Path) -> None:
        if format == "torchscript":
            network.write_torchscript(path, options, {})
        else:
            network.write_checkpoint(path, options.precision)

    with small_disk(tmp_path / "disk", 1) as disk:
        fill(disk, leave=64 * 1024)
        with pytest.raises((OSError, RuntimeError)) as caught:
            write(disk / "model")
    assert is_disk_full(caught.value)


def test_a_copy_that_exists_is_said_before_the_work(
    model_folder: Folder, target: Path, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "small-1.onnx").touch()
    task = ExportTask(
        folder=model_folder("classify"),
        model_id="small:1",
        content=CONTENT,
        target=target,
        request=ExportRequest(format="onnx"),
        copied_to=tmp_path,
    )
    with pytest.raises(Conflict, match=r"small-1\.onnx exists already\. Name another file"):
        make(task, settings, lambda step, share: None)
    assert not target.exists()


@pytest.mark.parametrize("with_exports", [False, True])
def test_a_model_that_is_deleted_meanwhile_leaves_no_export(
    with_exports: bool, model_folder: Folder, target: Path, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    shutil.copytree(model_folder("classify"), folder)
    task = ExportTask(
        folder=folder,
        model_id="small:1",
        content=CONTENT,
        target=target,
        request=ExportRequest(format="onnx"),
    )

    def report(step: str, share: float) -> None:
        (folder / DESCRIPTION_FILE).unlink(missing_ok=True)
        if with_exports:  # as the registry deletes it
            shutil.rmtree(target)

    with pytest.raises(ModelNotFound, match="has been deleted"):
        make(task, settings, report)
    assert not list(target.glob("*/*"))
