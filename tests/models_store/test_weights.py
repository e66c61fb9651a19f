"""A network rebuilt from safetensors and JSON answers as the original does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from errors import InvalidModelFile
from models_store import export
from models_store._onnxruntime import onnxruntime
from models_store.architecture import checked
from models_store.description import ModelDescription, Preprocessing, Task, class_names
from models_store.export import ExportError, ServingModule, export_onnx, record
from models_store.ultralytics_env import prepare
from models_store.weights import (
    build_model,
    describe,
    describe_mobilenet,
    describe_yolo,
    fill,
    load_model,
    load_weights,
    save_model,
    save_weights,
)
from tests.support.seeds import rng
from tests.support.small_models import NAMES, architecture, small_description, write_model

TASKS: list[Task] = ["detect", "segment", "pose", "classify"]


def original(task: Task) -> torch.nn.Module:
    """Ultralytics' own model of a yaml, its weights rounded to fp16 as they are stored."""
    prepare()
    from ultralytics.nn import tasks

    classes: dict[Task, Any] = {
        "detect": tasks.DetectionModel,
        "segment": tasks.SegmentationModel,
        "pose": tasks.PoseModel,
        "classify": tasks.ClassificationModel,
    }
    model = classes[task](architecture(task), nc=len(NAMES), verbose=False)
    model.names = dict(enumerate(NAMES))
    for value in model.parameters():
        value.data = value.data.half().float()
    return model.eval()


def outputs(module: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        output = module(images)
    return list(output) if isinstance(output, tuple) else [output]


@pytest.mark.parametrize("task", TASKS)
def test_a_rebuilt_model_is_identical(task: Task, tmp_path: Path) -> None:
    model = original(task)
    description = describe(model, 64)
    save_model(tmp_path, model, description)
    rebuilt, read = load_model(tmp_path)
    assert read == description
    assert (read.task, read.names, read.imgsz) == (task, NAMES, 64)
    images = torch.rand(2, 3, 64, 64)
    expected = outputs(ServingModule(model, description), images)
    actual = outputs(ServingModule(rebuilt, description), images)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_a_rebuilt_mobilenet_is_identical(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=3, width_mult=0.25).eval()
    for value in model.parameters():
        value.data = value.data.half().float()
    description = describe(model, 32, names=["a", "b", "c"])
    assert description == describe_mobilenet(3, 32, names=["a", "b", "c"], width=0.25)
    save_model(tmp_path, model, description)
    images = torch.rand(2, 3, 32, 32)
    (expected,) = outputs(model, images)
    (actual,) = outputs(ServingModule(*load_model(tmp_path)), images)
    assert torch.equal(actual, expected.softmax(1))


def test_matrices_become_fp16_and_what_fp16_cannot_hold_stays(tmp_path: Path) -> None:
    state = {
        "matrix": torch.rand(3, 3),
        "vector": torch.rand(3),
        "huge": torch.full((2, 2), 1e6),
        "count": torch.tensor(5),
        "shared": torch.arange(6.0).reshape(2, 3),
    }
    state["view"] = state["shared"].T
    save_weights(state, tmp_path / "w")
    loaded = load_weights(tmp_path / "w")
    assert torch.equal(loaded["matrix"], state["matrix"].half().float())
    for name in ("vector", "huge", "count", "shared", "view"):
        assert torch.equal(loaded[name], state[name])
    size = (tmp_path / "w").stat().st_size
    assert size < 2 * 9 + 4 * 3 + 4 * 4 + 8 + 2 * 12 + 600


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = build_model(small_description("detect"))
    state = model.state_dict()
    name = next(iter(state))
    for changed, word in (
        ({k: v for k, v in state.items() if k != name}, "lack"),
        ({**state, "extra": state[name]}, "add extra"),
        ({**state, name: state[name][:1]}, "have another shape in"),
        ({k.replace(".bn.", ".x."): v for k, v in state.items()}, "fused"),
    ):
        with pytest.raises(InvalidModelFile, match=word):
            fill(model, changed)
    (tmp_path / "w").write_bytes(b"x" * 100)
    with pytest.raises(InvalidModelFile, match="damaged"):
        load_weights(tmp_path / "w")


def test_an_architecture_far_larger_than_its_weights_is_refused_before_it_is_built(
    tmp_path: Path,
) -> None:
    described = small_description("detect")
    write_model(tmp_path, described, seed=0)
    wide = {**described.architecture, "scales": {"n": [0.33, 60.0, 8192]}, "scale": "n"}
    described.model_copy(update={"architecture": wide}).save(tmp_path)
    with pytest.raises(InvalidModelFile, match=r"has [\d,]{9,} weights, the file has"):
        load_model(tmp_path)


def test_end_to_end_heads_answer_from_their_one_to_many_branch(tmp_path: Path) -> None:
    description = small_description("detect", end2end=True, reg_max=1)
    write_model(tmp_path, description, seed=0)
    entry = export_onnx(tmp_path)
    assert entry["max_box_error_px"] < 0.01
    model, _ = load_model(tmp_path)
    assert any("one2one" in name for name in model.state_dict())
    (output,) = outputs(ServingModule(model, description), torch.rand(1, 3, 64, 64))
    assert output.shape == (1, 4 + 3, 8 * 8 + 4 * 4)


@pytest.mark.parametrize("task", TASKS)
def test_export_gives_the_agreed_outputs_for_any_batch(task: Task, tmp_path: Path) -> None:
    description = small_description(task)
    write_model(tmp_path, description, seed=1)
    entry = export_onnx(tmp_path)
    assert entry["max_box_error_px"] < 0.01
    assert entry["max_score_error"] < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    anchors = 8 * 8 + 4 * 4
    shapes: dict[Task, list[tuple[int, ...]]] = {
        "detect": [(4 + 3, anchors)],
        "segment": [(4 + 3 + 32, anchors), (32, 16, 16)],
        "pose": [(4 + 3 + 4 * 3, anchors)],
        "classify": [(3,)],
    }
    for n in (1, 3):
        images = rng(0).random((n, 3, 64, 64), np.float32)
        results = session.run(None, {"images": images})
        assert [result.shape for result in results] == [(n, *shape) for shape in shapes[task]]
        scores = results[0][:, 4:7] if task != "classify" else results[0]
        assert 0 <= scores.min() < scores.max() <= 1
        if task == "classify":
            assert np.allclose(scores.sum(1), 1, atol=1e-5)


def test_export_is_deterministic_and_keeps_other_engines_entries(tmp_path: Path) -> None:
    write_model(tmp_path, small_description("classify", 32), seed=2)
    record(tmp_path, "openvino", {"max_score_error": 0.5})
    export_onnx(tmp_path)
    first = (tmp_path / "model.onnx").read_bytes()
    export_onnx(tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == first
    assert '"openvino"' in (tmp_path / "engines.json").read_text()


def test_an_engine_that_differs_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path, small_description("classify", 32), seed=2)
    monkeypatch.setattr(export, "MAX_SCORE_ERROR", -1.0)
    monkeypatch.setattr(export, "limit_self", lambda: None)
    assert export.main([str(tmp_path)]) == 1
    assert "does not reproduce PyTorch" in capsys.readouterr().err
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"model.json", "model.safetensors"}


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    description = small_description("classify", 32)
    model = build_model(description)
    for value in model.parameters():
        value.data.fill_(float("nan"))
    save_model(tmp_path, model, description)
    with pytest.raises(ExportError, match="NaN or infinite"):
        export_onnx(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"activation": "__import__('os').system('true')"}, "The activation"),
        ({"activation": "nn.SiLU() or exit()"}, "The activation"),
        ({"activation": "nn.Module()"}, "The activation"),
        ({"backbone": []}, "no usable 'backbone'"),
        ({"backbone": [[-1, 1, "TorchVision", [64, "resnet18"]]]}, "TorchVision"),
        ({"backbone": [[-1, 1, "torch.hub.load", ["x"]]]}, "torch.hub.load"),
        ({"backbone": [[-1, 1, "Conv", ["__import__('os')", 3]]]}, "has the argument"),
        ({"backbone": [[-1, 1, "Conv", [10**9, 3]]]}, "not a usable number"),
        ({"backbone": [["d", 1, "Conv", [8, 3]]]}, "not a usable number"),
        ({"backbone": [[-1, 1, "Conv"]]}, "is not a layer"),
        ({"backbone": [[-1, 1, "Conv", [64, 3, 2]], [[0, 99], 1, "Concat", [1]]]}, "cannot be"),
        ({"head": [[[4, 6], 1, "OBB", ["nc", 1]]]}, r"oriented boxes \(obb\)"),
        ({"head": [[[4, 6], 1, "RTDETRDecoder", ["nc"]]]}, "RT-DETR"),
        ({"head": [[[4, 6], 1, "WorldDetect", ["nc"]]]}, "YOLO-World"),
        ({"head": [[-1, 1, "Conv", [8, 3]]]}, "last layer is 'Conv'"),
        ({"nc": 0}, "'nc'"),
        ({"nc": "3"}, "'nc'"),
        ({"scale": "z"}, "no scale 'z'"),
        ({"kpt_shape": [4, 5]}, "2 or 3 numbers"),
    ],
)
def test_a_hostile_or_foreign_architecture_is_refused(
    change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidModelFile, match=sentence):
        build_model(describe_yolo({**architecture("detect"), **change}, imgsz=64, names=NAMES))


def test_every_architecture_that_ultralytics_ships_is_allowed_or_named() -> None:
    prepare()
    import ultralytics
    from ultralytics.nn.tasks import yaml_model_load

    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    refused = {}
    for path in sorted(folder.glob("*/*.yaml")):
        yaml = yaml_model_load(path)
        if yaml.get("scales") and not yaml["scale"]:
            yaml["scale"] = next(iter(yaml["scales"]))
        try:
            checked(yaml)
        except InvalidModelFile as error:
            refused[path.stem] = error.message
    marks = ("obb", "rtdetr", "world", "yoloe", "-sem", "-depth", "cls-resnet18")
    assert {name for name in refused if not any(mark in name for mark in marks)} == set()
    assert len(refused) > 10


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b", "c"], ("a", "b", "c")),
        ({0: "a", 1: "b", 2: "c"}, ("a", "b", "c")),
        ({"0": "a", "2": "c"}, ("a", "class 1", "c")),
        ({5: "x"}, ("class 0", "class 1", "class 2")),
        (["a", "a", "a"], ("a", "a (1)", "a (2)")),
        (["a", "", " b "], ("a", "class 1", "b")),
        ([7, None, "c", "more"], ("7", "None", "c")),
        (None, ("class 0", "class 1", "class 2")),
    ],
)
def test_class_names_as_people_have_them(names: object, expected: tuple[str, ...]) -> None:
    assert class_names(names, 3) == expected


def test_a_description_survives_its_file(tmp_path: Path) -> None:
    description = describe_yolo(
        architecture("pose"),
        imgsz=50,
        names={0: "größe"},
        stride=16,
        keypoint_names=("a", "b", "c", "d"),
        preprocessing=Preprocessing(resize="squash", imgsz=64, mean=(1, 2, 3)),
    )
    description.save(tmp_path)
    assert ModelDescription.load(tmp_path) == description
    assert description.keypoint_shape == (4, 3)
