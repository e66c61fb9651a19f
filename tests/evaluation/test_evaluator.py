"""A whole evaluation: with engines whose answers are known, and beside Ultralytics' own val()."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dataset.dataset import Dataset
from dataset.inspection import check
from errors import ValidationFailed
from evaluation.evaluator import Evaluation, evaluate
from evaluation.letterbox import AskedLetterbox, place, val_rectangles
from evaluation.store import PLOTS, PREDICTIONS, REPORT
from evaluation.target import EvaluationTarget
from inference.engine import Engine
from inference.images import DecodedImage, decode
from inference.onnx_engine import OnnxEngine
from inference.predict import predict
from inference.preprocess import LetterboxKind
from inference.torch_engine import TorchEngine
from models_store.description import ModelDescription, Preprocessing, Task
from settings import Settings
from synthetic.shapes import SHAPES
from tests.support.seeds import derived, rng
from tests.support.shapes import write_shapes

IMGSZ = 96
CPU = Settings(device="cpu")


class Oracle:
    """An engine that knows the labels, and errs where it is told to.

    `change` gets the objects of image i as rows of class, score, x1, y1, x2, y2.
    """

    backend, batched = "oracle", False
    letterbox: LetterboxKind = "square"

    def __init__(self, dataset: Dataset, change: Callable[[int, list[Any]], list[Any]]) -> None:
        self._answers: list[np.ndarray] = []
        self._asked = -1  # the first is a rehearsal
        for i, image in enumerate(dataset.scan().splits["val"]):
            lines = dataset.labels[image].read_text().splitlines()
            rows = [[int(c), 0.9, *_xyxy(*map(float, rest))] for c, *rest in map(str.split, lines)]
            self._answers.append(_output(change(i, rows)))

    def run(self, pixels: Any, wide: bool = False, halt: Any = None) -> tuple[np.ndarray, ...]:
        answer = self._answers[max(0, self._asked)]
        self._asked += 1
        return (answer[None],)


def _xyxy(x: float, y: float, w: float, h: float) -> list[float]:
    return [IMGSZ * v for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]


def _output(rows: list[Any]) -> np.ndarray:
    output = np.zeros((4 + len(SHAPES), max(1, len(rows))), np.float32)
    for i, (cls, score, x1, y1, x2, y2) in enumerate(rows):
        output[:4, i] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        output[4 + cls, i] = score
    return output


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("shapes")
    return check(write_shapes(folder, "detect", train=2, val=6, imgsz=IMGSZ), "detect", [folder])


def description(names: tuple[str, ...] = SHAPES) -> ModelDescription:
    how = Preprocessing(resize="letterbox", imgsz=IMGSZ)
    return ModelDescription(
        task="detect", family="yolo", names=names, architecture={}, preprocessing=how
    )


def measured(
    dataset: Dataset,
    output: Path,
    change: Callable[[int, list[Any]], list[Any]] = lambda _, rows: rows,
    names: tuple[str, ...] = SHAPES,
) -> Evaluation:
    output.mkdir(exist_ok=True)
    return evaluate(
        EvaluationTarget(output, dataset, model_id="oracle:1", dataset_name="shapes"),
        CPU,
        output=output,
        progress=lambda *_: None,
        loaded=(Oracle(dataset, change), description(names)),
    )


def test_a_perfect_model_is_measured_as_one(dataset: Dataset, tmp_path: Path) -> None:
    found = measured(dataset, tmp_path)
    for name in ("accuracy", "precision", "recall", "f1_score"):
        assert found.metrics[name] == pytest.approx(1.0, abs=1e-3)
    assert found.metrics["mAP50"] == pytest.approx(0.995)
    assert found.metrics["mAP50_95"] == pytest.approx(0.995)
    assert found.report["worst"] == []
    matrix = np.array(found.report["confusion"]["matrix"])
    assert matrix.sum() == np.trace(matrix) == found.report["dataset"]["instances"]


def test_every_kind_of_mistake_is_counted(dataset: Dataset, tmp_path: Path) -> None:
    first: list[int] = []

    def err(i: int, rows: list[Any]) -> list[Any]:
        if i == 0:
            first.append(rows[0][0])
            return rows[1:]  # one missed
        if i == 1:
            rows[0][0] = (rows[0][0] + 1) % 3  # one of a wrong class: false and missed
            return rows
        if i == 2:
            return [*rows, [0, 0.8, 1, 1, 9, 9]]  # one where nothing is
        if i == 3:
            return [*rows, [0, 0.1, 1, 1, 9, 9]]  # below what is served
        return rows

    found = measured(dataset, tmp_path, err)
    objects = found.report["dataset"]["instances"]
    right, false, missed = objects - 2, 2, 2
    serving = found.report["at_serving"]
    assert serving["accuracy"] == pytest.approx(right / (right + false + missed))
    assert serving["precision"] == pytest.approx(right / (right + false))
    assert serving["recall"] == pytest.approx(right / objects)
    assert found.metrics["accuracy"] == serving["accuracy"]
    matrix = np.array(found.report["confusion"]["matrix"])
    assert matrix[first[0], 3] == 1
    assert matrix[3, 0] == 1
    assert matrix[:3, :3].sum() - np.trace(matrix) == 1
    worst = found.report["worst"]
    assert [row["score"] for row in worst] == [2.0, 1.0, 1.0]
    assert worst[0]["reason"].startswith("missed 1 ")
    assert "false 1 circle (up to 0.80)" in [row["reason"] for row in worst]
    assert decode((tmp_path / worst[0]["file"]).read_bytes(), 10**6).shape[1] > 2 * IMGSZ

    saved = np.load(tmp_path / PREDICTIONS)
    assert saved["right"].sum() == right
    assert saved["false"].sum() == false
    assert saved["missed"].sum() == missed
    assert saved["tp"].shape == (len(saved["conf"]), 10)
    assert len(saved["images"]) == 6
    assert set(saved["image"]) <= set(range(6))
    assert len(saved["target"]) == len(saved["target_image"]) == objects


def test_the_report_is_json_and_says_what_was_measured_how(
    dataset: Dataset, tmp_path: Path
) -> None:
    found = measured(dataset, tmp_path)
    report = json.loads((tmp_path / REPORT).read_text())
    assert report == json.loads(json.dumps(found.report))
    assert report["model"]["id"] == "oracle:1"
    assert report["dataset"]["fingerprint"] == dataset.fingerprint
    assert report["engine"] == "oracle"
    assert report["decode"] == "fast"
    assert report["thresholds"]["confidence"] == 0.25
    assert "TP / (TP + FP + FN)" in report["definitions"]["accuracy"]
    assert report["speed"]["inference"] >= 0
    assert {row["name"] for row in report["classes"]} <= set(SHAPES)
    assert report["plots"] == ["confusion", "precision_recall", "f1_confidence", "classes"]
    for name in report["plots"]:
        assert decode((tmp_path / PLOTS / f"{name}.png").read_bytes(), 10**7).shape[1] > 400


def test_classes_are_joined_by_name_and_told(dataset: Dataset, tmp_path: Path) -> None:
    names = ("CIRCLE", "tram", " triangle")  # squares are unknown, trams not in the data

    def answer(_: int, rows: list[Any]) -> list[Any]:
        return [[1, 0.9, 0, 0, 5, 5], *(row for row in rows if row[0] != 1)]

    found = measured(dataset, tmp_path, answer, names)
    rows = {row["name"]: row for row in found.report["classes"]}
    assert rows["square"]["recall"] == 0
    assert rows["CIRCLE"]["mAP50"] == pytest.approx(0.995)
    assert found.report["unknown_classes"] == ["square"]
    assert found.report["absent_classes"] == ["tram"]
    assert found.metrics["mAP50"] == pytest.approx(0.995 * 2 / 3)
    assert found.report["at_serving"]["precision"] == 1.0  # trams are not judged
    assert "does not know the dataset's class square" in found.report["notes"][0]
    assert "no class tram" in found.report["notes"][1]


def test_progress_is_told_to_the_picture_and_may_end_it(dataset: Dataset, tmp_path: Path) -> None:
    class Stopped(BaseException):
        pass

    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(
            EvaluationTarget(tmp_path, dataset),
            CPU,
            output=tmp_path,
            progress=progress,
            loaded=(Oracle(dataset, lambda _, rows: rows), description()),
        )
    assert seen == [(0, 6), (1, 6), (2, 6), (3, 6)]
    assert not (tmp_path / REPORT).exists()


# --- beside Ultralytics


def make_network(task: Task, folder: Path, dataset: Dataset) -> None:
    """A small network that finds things: trained by nobody, sure of itself here and there."""
    import torch

    from models_store.export import export_onnx
    from models_store.weights import build_model, describe_yolo, save_model
    from training.planning.base_models import SUFFIXES, architecture_yaml

    torch.manual_seed(derived(1))
    yaml = architecture_yaml(f"yolov8n{SUFFIXES[task]}")
    yaml |= {"scales": {"t": [0.33, 0.125, 1024]}, "scale": "t", "nc": len(dataset.names)}
    if dataset.keypoints:
        yaml["kpt_shape"] = list(dataset.keypoints.shape)
    described = describe_yolo(yaml, imgsz=IMGSZ, names=dataset.names)
    module = build_model(described)
    paths = dataset.scan().splits["train"]
    pictures = np.stack([np.asarray(Image.open(path).resize((IMGSZ,) * 2)) for path in paths])
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
            layer.reset_running_stats()
    module.train()
    with torch.no_grad():
        module(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
        module.eval()
        for name, parameter in module.named_parameters():
            if ".cv3." in name and name.endswith(".2.weight"):
                parameter.mul_(2)  # no score is 1: the order of equal ones is another in val
            if ".cv3." in name and name.endswith(".2.bias"):
                parameter.fill_(-2.0)
            if ".cv2." in name and name.endswith(".2.weight"):
                parameter.mul_(2)
            if name.endswith("linear.weight"):
                parameter.mul_(8)
    folder.mkdir()
    save_model(folder, module, described)
    if task == "classify":
        export_onnx(folder)


SIZES = (
    [(120, 75), (75, 121), (96, 96), (200, 133), (90, 64), (97, 96), (61, 180), (96, 50)]
    + [(160, 90)] * 9  # batches of one aspect ratio, as cameras make them
    + [(90, 160), (300, 40), (41, 300)]
)


def odd_sizes(folder: Path, task: Task) -> Path:
    """Drawn data whose images have sides that do not fit the network's, in two batches of val."""
    data = write_shapes(folder, task, train=6, val=len(SIZES), imgsz=IMGSZ)
    found = sorted(folder.rglob("val/**/*.jpg"))
    for path, size in zip(found, SIZES, strict=True):
        Image.open(path).resize(size).save(path)
    return data


def label_as_found(dataset: Dataset, engine: Engine, described: ModelDescription) -> None:
    """Make labels of what the network finds, a little beside: so that it is right at times."""
    random = rng(0)
    for image in dataset.scan().splits["val"]:
        pixels = decode(image.read_bytes(), 10**6)
        size = np.array(pixels.shape[1::-1])
        found = predict(engine, described, [DecodedImage.full(pixels)], confidence=0.01, max_det=9)[
            0
        ]
        lines = []
        for i, cls in enumerate(found.class_ids):
            corners = found.boxes[i].reshape(2, 2) / size
            moved = random.uniform(-0.12, 0.12, 2) * (corners[1] - corners[0])
            corners = np.clip(corners + moved, 0, 1)
            if (corners[1] - corners[0]).min() < 0.05:
                continue
            values = np.concatenate((corners.mean(0), corners[1] - corners[0]))
            if found.polygons is not None:
                values = np.clip(found.polygons[i][0] / size + moved, 0, 1).ravel()
            if found.keypoints is not None:
                points = np.clip(found.keypoints[i, :, :2] / size + moved, 0, 1)
                seen = random.integers(0, 3, (len(points), 1))
                values = np.concatenate((values, np.hstack((points * (seen > 0), seen)).ravel()))
            lines.append(f"{cls} " + " ".join(f"{value:.6f}" for value in values))
        dataset.labels[image].write_text("\n".join(lines))


def beside_val(task: Task, tmp_path: Path, rect: bool) -> tuple[Evaluation, Any]:
    """An evaluation with PyTorch and the letterbox of a validation, and this of Ultralytics."""
    from ultralytics import YOLO

    from models_store.weights import load_model

    data = odd_sizes(tmp_path / "data", task)
    dataset = check(data, task, [tmp_path])
    folder = tmp_path / "model"
    make_network(task, folder, dataset)
    output = tmp_path / "out"
    output.mkdir()
    described = ModelDescription.load(folder)
    # PyTorch, as `val`: what is compared are the metrics, not the arithmetic of two engines.
    engine: Engine = (
        OnnxEngine(folder, described, CPU)
        if task == "classify"
        else TorchEngine(folder, "cpu", half=False)
    )
    asked: AskedLetterbox | None = None
    if task != "classify":
        asked = "val_rect" if rect else "square"
        label_as_found(dataset, engine, described)
        dataset = check(data, task, [tmp_path])
    found = evaluate(
        EvaluationTarget(folder, dataset, letterbox=asked),
        CPU,
        output=output,
        progress=lambda *_: None,
        loaded=(engine, described),
    )
    assert found.report["letterbox"] == asked

    suffix = {"detect": "", "segment": "-seg", "pose": "-pose", "classify": "-cls"}[task]
    model: Any = YOLO(f"yolov8n{suffix}.yaml", task=task)
    model.model, _ = load_model(folder)
    wanted = model.val(
        data=str(dataset.materialise(tmp_path / "view")),
        imgsz=IMGSZ,
        rect=rect,
        device="cpu",
        plots=False,
        verbose=False,
        workers=0,
        project=str(tmp_path / "runs"),
    )
    return found, wanted


@pytest.mark.parametrize("rect", [False, True], ids=["square", "val_rect"])
@pytest.mark.parametrize("task", ["detect", "segment", "pose"])
def test_figures_are_those_of_ultralytics_val(task: Task, rect: bool, tmp_path: Path) -> None:
    found, wanted = beside_val(task, tmp_path, rect)
    kinds = {"": wanted.box}
    kinds |= {"mask_": wanted.seg} if task == "segment" else {}
    kinds |= {"pose_": wanted.pose} if task == "pose" else {}
    for prefix, metric in kinds.items():
        figures = {"precision": metric.mp, "recall": metric.mr}
        figures |= {"mAP50": metric.map50, "mAP50_95": metric.map}
        for name, value in figures.items():
            assert found.metrics[prefix + name] == pytest.approx(value, abs=1e-4), prefix + name
        rows = {row["class_id"]: row for row in found.report["classes"] if row["instances"]}
        for i, cls in enumerate(metric.ap_class_index):
            assert rows[cls][f"{prefix}mAP50"] == pytest.approx(metric.ap50[i], abs=1e-4)
    assert found.metrics["mAP50"] > 0


def test_figures_of_a_classifier_are_those_of_ultralytics_val(tmp_path: Path) -> None:
    found, wanted = beside_val("classify", tmp_path, rect=False)
    assert found.metrics["accuracy"] == pytest.approx(wanted.top1)
    assert found.metrics["accuracy_top5"] == pytest.approx(wanted.top5)
    matrix = np.array(found.report["confusion"]["matrix"])
    np.testing.assert_array_equal(matrix, wanted.confusion_matrix.matrix.T)


def test_images_lie_where_ultralytics_validation_puts_them() -> None:
    about = description().model_copy(
        update={"preprocessing": Preprocessing(resize="letterbox", imgsz=640)}
    )
    assert place("square", about, 600, 500).resized == (640, 534)  # 533.33
    assert place("rect", about, 600, 500).resized == (640, 533)
    assert place("square", about, 640, 480).resized == (640, 480)
    assert place("square", about, 640, 480).frame == (640, 640)
    assert place("rect", about, 640, 480).frame == (640, 480)
    wide = [(640, 480)] * 16 + [(640, 320), (480, 640)]
    rectangles = val_rectangles(wide, about)
    assert rectangles[:15] == [(672, 512)] * 15  # half a stride more than the image, rounded up
    assert rectangles[16] == (672, 512)
    assert rectangles[17] == (672, 672)  # with one of the wide ones, in a batch of two


def test_what_is_served_is_measured_unless_told_otherwise(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", "detect", train=2, val=6, imgsz=IMGSZ)
    dataset = check(data, "detect", [tmp_path])
    shapes: list[tuple[int, ...]] = []

    class Served(Oracle):
        letterbox: LetterboxKind = "rect"

        def run(self, pixels: Any, wide: bool = False, halt: Any = None) -> tuple[np.ndarray, ...]:
            shapes.append(pixels.shape)
            return super().run(pixels, wide, halt)

    def evaluated(asked: AskedLetterbox | None, kind: type[Oracle] = Served) -> Evaluation:
        shapes.clear()
        engine = kind(dataset, lambda _, rows: rows)
        return evaluate(
            EvaluationTarget(tmp_path, dataset, letterbox=asked),
            CPU,
            output=tmp_path,
            progress=lambda *_: None,
            loaded=(engine, description()),
        )

    for image in dataset.scan().splits["val"]:
        Image.open(image).resize((96, 60)).save(image)
    found = evaluated(None)
    assert found.report["letterbox"] == "rect"
    assert "as they are when they are served" in found.report["definitions"]["letterbox"]
    assert shapes == [(1, 96, 96, 3)] + [(1, 64, 96, 3)] * 6  # each image once
    assert evaluated("square").report["letterbox"] == "square"
    assert shapes == [(1, 96, 96, 3)] * 7
    assert evaluated("val_rect").report["letterbox"] == "val_rect"
    assert shapes[1:] == [(1, 96, 128, 3)] * 6
    assert evaluated(None, Oracle).report["letterbox"] == "square"
    with pytest.raises(ValidationFailed, match="takes squares only"):
        evaluated("val_rect", Oracle)
