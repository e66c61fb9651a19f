"""Checkpoints as Ultralytics and torchvision write them, and as people change them."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torchvision import transforms
from torchvision.models import mobilenet_v2
from torchvision.transforms import InterpolationMode

from errors import InvalidModelFile, ValidationFailed
from models_store.description import ModelDescription, Task, certain_names
from models_store.export import ServingModule
from models_store.foreign import importer
from models_store.foreign.convert import convert
from models_store.foreign.importer import Conversion, import_model
from models_store.foreign.inert_pickle import Inert
from models_store.foreign.transforms import preprocessing_of
from models_store.registry import Registry
from models_store.weights import load_model
from tests.support.patience import PATIENCE
from tests.support.small_models import NAMES, checkpoint, network

ROOT = Path(__file__).parents[3]
Change = Callable[[Any], object]


def converted(path: Path, folder: Path, **options: Any) -> ModelDescription:
    folder.mkdir(exist_ok=True)
    convert(path, folder, **options)
    assert (folder / "model.onnx").is_file()
    return ModelDescription.load(folder)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "classify"])
def test_an_imported_model_answers_as_the_original(task: Task, tmp_path: Path) -> None:
    model = network(task)
    path = checkpoint(tmp_path / "best.pt", model, ema=task == "detect")
    description = converted(path, tmp_path / "out")
    assert (description.task, description.names, description.imgsz) == (task, NAMES, 64)
    rebuilt, _ = load_model(tmp_path / "out")
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())  # as the checkpoint has it
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = ServingModule(model, description)(images)
        actual = ServingModule(rebuilt, description)(images)
    pairs = zip(actual, expected, strict=True) if task == "segment" else [(actual, expected)]
    assert all(torch.equal(a, b) for a, b in pairs)


def test_import_through_the_child_under_a_name_that_ultralytics_would_look_up(
    registry: Registry, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "yolov5n.pt", network("classify"))
    model = import_model(registry, path, Conversion(description="from elsewhere"), promote=True)
    assert registry.get("yolov5n") == model
    assert model.promoted
    assert model.source["kind"] == "import"
    assert model.source["file"] == "yolov5n.pt"
    assert model.source["origin"] == {"version": "8.2.59", "date": "2024-01-01"}
    assert json.loads((model.path / "engines.json").read_text())["onnx"]["opset"] == 17
    assert list((registry.settings.home / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda m: setattr(m, "names", ["x", "y", "z"]), ("x", "y", "z")),
        (lambda m: setattr(m, "names", {0: "x", 2: "x"}), ("x", "class 1", "x (2)")),
        (lambda m: delattr(m, "names"), ("class 0", "class 1", "class 2")),
        (lambda m: setattr(m, "names", {"0": "x", "1": "y", "2": "z"}), ("x", "y", "z")),
        (lambda m: setattr(m, "names", {2: "z", 0: "x", 1: "y"}), ("x", "y", "z")),
        (lambda m: setattr(m, "names", ("x", "x", None)), ("x", "x (1)", "class 2")),
        (lambda m: setattr(m, "names", OrderedDict({0: "x", 1: "y"})), ("x", "y", "class 2")),
        (lambda m: setattr(m, "names", defaultdict(str, {1: "y"})), ("class 0", "y", "class 2")),
    ],
)
def test_class_names_of_a_checkpoint(
    change: Change, names: tuple[str, ...], tmp_path: Path
) -> None:
    model = network("classify")
    change(model)
    path = checkpoint(tmp_path / "best.pt", model, imgsz=32)
    assert converted(path, tmp_path / "out").names == names
    assert converted(path, tmp_path / "b", names=["1", "2", "3"]).names == ("1", "2", "3")
    with pytest.raises(ValidationFailed, match="2 class names were given; the model has 3"):
        convert(path, tmp_path, names=["1", "2"])


@pytest.mark.parametrize(
    ("given", "option", "expected"),
    [(50, None, 64), ([64, 96], None, 96), (None, 40, 48), ("big", 64, 64), (10**9, 32, 32)],
)
def test_image_sizes_become_one_side_that_fits_the_stride(
    given: object, option: int | None, expected: int, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "best.pt", network("detect"), imgsz=given)
    assert converted(path, tmp_path / "out", imgsz=option).imgsz == expected


def _set_stride(model: Any) -> None:
    model.model[1].conv.stride = (1, 1)


def _set_activation(model: Any) -> None:
    model.model[0].act = torch.nn.ReLU()


def _set_epsilon(model: Any) -> None:
    model.model[0].bn.eps = 0.5


def _set_head(model: Any) -> None:
    from ultralytics.nn.modules import OBB

    model.model[-1].__class__ = OBB


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            {0: "person", 1: "cow", 20: "elephant"},
            "id 20 ('elephant'), but its model has 3",
        ),
        ({1: "x", 2: "y", 3: "z"}, "id 3 ('z')"),
        ({-1: "none", 0: "x"}, "id '-1' ('none')"),
        ({"x": 0, "y": 1, "z": 2}, "id 'x' ('0')"),
        ({0: "x", "0": "y"}, "id 0 twice"),
        ({0.0: "x"}, "id '0.0' ('x')"),
        ({True: "x"}, "id 'True' ('x')"),
        (["x", "y"], "2 names, but its model has 3 outputs"),
        (list("xyzw"), "4 names, but its model has 3 outputs"),
        ([], "0 names"),
        ("xyz", "neither a list nor a mapping of id to name"),
        ([["x"], "y", "z"], "name of class 0 is not a text"),
    ],
)
@pytest.mark.parametrize("task", ["detect", "classify"])
def test_names_that_may_belong_to_other_outputs_are_refused(
    task: Task, names: Any, said: str, tmp_path: Path
) -> None:
    """A subset of COCO that kept its ids had an elephant answered as a cow."""
    model = network(task)
    model.names = names
    path = checkpoint(tmp_path / "best.pt", model, imgsz=32)
    with pytest.raises(InvalidModelFile, match=re.escape(said)) as error:
        convert(path, tmp_path, serving=False)
    assert "as 'names'" in error.value.message
    convert(path, tmp_path, names=["a", "b", "c"], serving=False)
    assert ModelDescription.load(tmp_path).names == ("a", "b", "c")


def test_a_head_of_other_classes_than_the_yaml_s_is_refused(tmp_path: Path) -> None:
    model = network("detect")
    model.model[-1].nc = 4
    with pytest.raises(InvalidModelFile, match="yaml has 3 classes, but its head has 4"):
        convert(checkpoint(tmp_path / "best.pt", model), tmp_path, serving=False)


def _set_classes(model: Any) -> None:
    model.yaml["nc"] = model.model[-1].nc = 4
    model.names = list("abcd")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set_stride, r"model\.1\.conv has stride \(1, 1\), but \(2, 2\) in its yaml"),
        (_set_activation, r"model\.0\.act is a ReLU, but a SiLU in its yaml"),
        (_set_epsilon, "different epsilons"),
        (_set_head, "oriented boxes"),
        (lambda m: m.fuse(verbose=False), "was fused"),
        (lambda m: setattr(m, "yaml", None), "without a model yaml"),
        (lambda m: m.yaml.update(activation="exec('')"), "activation"),
        (lambda m: m.yaml.update(channels=4), "4 channels"),
        (lambda m: m.yaml.update(nc=4), "yaml has 4 classes, but its head has 3"),
        (_set_classes, "do not fit"),
    ],
)
def test_a_model_that_its_yaml_does_not_describe_is_refused(
    change: Change, sentence: str, tmp_path: Path
) -> None:
    model = network("detect")
    change(model)
    path = checkpoint(tmp_path / "best.pt", model)
    with pytest.raises(InvalidModelFile, match=sentence):
        convert(path, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_an_epsilon_of_all_layers_is_kept(tmp_path: Path) -> None:
    model = network("detect")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.25
    path = checkpoint(tmp_path / "best.pt", model)
    assert converted(path, tmp_path / "out").norm_eps == 0.25
    rebuilt: Any = load_model(tmp_path / "out")[0]
    assert rebuilt.model[0].bn.eps == 0.25


def _module(path: Path) -> None:
    torch.save(mobilenet_v2(num_classes=3, width_mult=0.25), path)


def _state_dict(path: Path) -> None:
    torch.save(mobilenet_v2(num_classes=3, width_mult=0.25).state_dict(), path)


def _old_format(path: Path) -> None:
    state = mobilenet_v2(num_classes=3, width_mult=0.25).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=False)


def _parallel(path: Path) -> None:
    state = mobilenet_v2(num_classes=3, width_mult=0.25).half().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)


@pytest.mark.parametrize("save", [_module, _state_dict, _old_format, _parallel])
def test_mobilenets_as_people_save_them(save: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path / "best.pth")
    description = converted(
        tmp_path / "best.pth", tmp_path / "out", family="mobilenet", names=["a", "b", "c"], imgsz=32
    )
    assert description.family == "mobilenet"
    assert description.names == ("a", "b", "c")
    assert description.architecture["width_mult"] == 0.25
    with pytest.raises(InvalidModelFile, match="not contain an Ultralytics YOLO"):
        convert(tmp_path / "best.pth", tmp_path, family="yolo")


def test_a_yolo_is_no_mobilenet(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "best.pt", network("classify"))
    with pytest.raises(InvalidModelFile, match="not contain torchvision's mobilenet_v2"):
        convert(path, tmp_path, family="mobilenet")


MEAN, STD = (0.5, 0.25, 0.125), (2.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (
            [transforms.Resize(40), transforms.CenterCrop(32), transforms.ToTensor()],
            {"resize": "centre_crop", "imgsz": 32, "resize_to": 40},
        ),
        (
            [
                transforms.Resize(32, interpolation=InterpolationMode.BICUBIC),
                transforms.CenterCrop((32, 32)),
                transforms.ToTensor(),
                transforms.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
            ],
            {"resize_to": 32, "interpolation": "bicubic", "mean": MEAN, "std": STD},
        ),
        (
            [transforms.Resize((32, 32)), transforms.Normalize(MEAN, STD)],
            {"resize": "squash", "imgsz": 32, "resize_to": None, "mean": MEAN, "std": STD},
        ),
        ([transforms.CenterCrop(32)], {"resize": "centre_crop", "imgsz": 32, "resize_to": 32}),
    ],
)
def test_a_classifiers_own_transforms_become_its_preprocessing(
    steps: list[Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    model = network("classify")
    model.transforms = transforms.Compose(steps)
    path = checkpoint(tmp_path / "best.pt", model, imgsz=640)
    found = converted(path, tmp_path / "out").preprocessing.model_dump()
    assert {key: found[key] for key in expected} == expected
    assert found["antialias"]


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([transforms.RandomHorizontalFlip(), transforms.ToTensor()], "'RandomHorizontalFlip'"),
        ([transforms.Resize((32, 64))], "does not produce a square"),
        ([transforms.Resize(32)], "does not produce a square"),
        ([transforms.Resize(32), transforms.CenterCrop(64)], "does not produce a square"),
        ([transforms.Resize((32, 32), InterpolationMode.LANCZOS)], "'lanczos'"),
        ([transforms.Resize((32, 32)), transforms.Normalize([0.5, 0.5], [1, 1])], "unusable"),
        ([transforms.CenterCrop(32), transforms.Normalize(0.5, 0.0)], "unusable"),
        ([transforms.CenterCrop(32), transforms.Normalize(float("nan"), 1.0)], "unusable"),
    ],
)
def test_transforms_that_serving_lacks_are_refused(
    steps: list[Any], sentence: str, tmp_path: Path
) -> None:
    model = network("classify")
    model.transforms = transforms.Compose(steps)
    path = checkpoint(tmp_path / "best.pt", model)
    with pytest.raises(InvalidModelFile, match=sentence):
        convert(path, tmp_path)


def test_a_lambda_among_the_transforms_is_refused_by_name(tmp_path: Path) -> None:
    model = network("classify")
    model.transforms = transforms.Compose([transforms.Lambda(os.path.abspath)])
    path = checkpoint(tmp_path / "best.pt", model)
    with pytest.raises(InvalidModelFile, match=r"'posixpath\.abspath'"):
        convert(path, tmp_path)


def test_preprocessing_without_steps_is_refused() -> None:
    with pytest.raises(InvalidModelFile):
        preprocessing_of(Inert(), lambda _: [])


@pytest.mark.parametrize(
    ("name", "conversion", "sentence"),
    [
        ("Big Name", Conversion(), "not a valid model name"),
        (None, Conversion(imgsz=8), "allowed is 32 to 4096"),
        (None, Conversion(names=["a", " "]), "must not be empty"),
        (None, Conversion(names=[]), "must not be empty"),
    ],
)
def test_wrong_options_are_refused_before_any_child(
    registry: Registry, tmp_path: Path, name: str | None, conversion: Conversion, sentence: str
) -> None:
    (tmp_path / "best.pt").write_bytes(b"\x80\x02.")
    with pytest.raises(ValidationFailed, match=sentence):
        import_model(registry, tmp_path / "best.pt", conversion, name=name)


def test_a_conversion_that_takes_too_long_is_killed(registry: Registry, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "best.pt", network("classify"))
    with pytest.raises(InvalidModelFile, match="could not be converted within"):
        import_model(registry, path, timeout=0.3)
    assert registry.list() == []
    ours = {"models_store.subprocesses", str(os.getpid())}  # servers of other tests have theirs
    assert not [c for c in psutil.Process().children() if ours <= set(c.cmdline())]


def test_kill_9_of_an_import_takes_its_child_along_and_is_swept(
    registry: Registry, tmp_path: Path
) -> None:
    path = checkpoint(tmp_path / "best.pt", network("classify"))
    command = [sys.executable, "-m", "models_store", "import", str(path)]
    importing = psutil.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not children:
        children = importing.children(recursive=True)
    importing.send_signal(signal.SIGKILL)
    importing.wait()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert children
    assert alive == []
    registry.sweep()
    assert list((registry.settings.home / "scratch").iterdir()) == []
    assert registry.list() == []


def test_a_file_that_is_no_model_is_refused_without_torch(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run, started = tmp_path / "bad.pt", importer.run_module, []

    def recorded(module: str, *rest: Any) -> Any:
        started.append(module)
        return run(module, *rest)

    monkeypatch.setattr(importer, "run_module", recorded)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", pickle.dumps({"model": [1, 2]}))
    with pytest.raises(InvalidModelFile, match="contains no model"):
        import_model(registry, path)
    assert started == ["models_store.foreign.checkpoint"]
    command = [sys.executable, "-m", "tests.support.imported_without_torch"]
    done = subprocess.run(
        [*command, "models_store.foreign.checkpoint"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "a\x1b[31m", "a\u2028b", "\ud800"])
def test_a_class_name_with_control_characters_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(InvalidModelFile, match=r"control characters.*'names'"):
        certain_names({0: "stop", 1: name}, 2)
    assert certain_names({0: "stop", 1: "Größe 标志 \n"}, 2) == ("stop", "Größe 标志")
