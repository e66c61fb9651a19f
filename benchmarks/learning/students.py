"""Parts of the distillation benchmark: small students, drawn images, Ultralytics' distillation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.bench import Bench
from models_store.description import ONNX_FILE, Task
from training.planning.base_models import SUFFIXES, architecture_yaml
from training.planning.recipe import Recipe
from training.publish import Trained

SPLITS = ("train", "val", "test")


def narrow(bench: Bench, task: Task, names: Sequence[str], width: float, seed: int) -> str:
    """Publish an untrained YOLOv8 with the given width multiple; returns its id.

    The same seed gives the same weights.
    """
    import torch

    from models_store.weights import build_model, describe_yolo, save_model

    yaml: dict[str, Any] = dict(architecture_yaml(f"yolov8n{SUFFIXES[task]}"))
    yaml |= {"scales": {"t": [0.33, width, 1024]}, "scale": "t", "nc": len(names)}
    torch.manual_seed(seed)
    description = describe_yolo(yaml, imgsz=640, names=tuple(names))
    folder = bench.folder / "scratch" / f"student-{task}-{width:g}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, build_model(description), description)
    (folder / ONNX_FILE).write_bytes(b"a start, never served")
    source = {"kind": "import"}
    return bench.registry.publish(folder, f"fresh-{task}", source, unless_present=True).id


def drawn(
    task: Task, folder: Path, imgsz: int, counts: Mapping[str, int], shapes: bool = False
) -> Path:
    """Draw a dataset with three splits, unless `folder` has it already; returns its path.

    The images show traffic signs; for `segment`, and with `shapes`, plain shapes.

    Raises:
        SystemExit: `folder` has a dataset with other numbers of images.
    """
    target = folder if task == "classify" else folder / "data.yaml"
    done = folder / "done"
    if done.is_file():
        if (there := json.loads(done.read_text())) != dict(counts):
            raise SystemExit(
                f"{folder} has the images {there}, not {dict(counts)}: give another --name."
            )
        return target
    for begun in (folder, _beside(folder)):
        shutil.rmtree(begun, ignore_errors=True)
    if task == "segment" or shapes:
        _draw_shapes(task, folder, imgsz, counts)
    else:
        _draw_signs(task, folder, imgsz, counts)
    done.write_text(json.dumps(dict(counts)))
    return target


def _draw_shapes(task: Task, folder: Path, imgsz: int, counts: Mapping[str, int]) -> None:
    from synthetic.shapes import write_shapes

    path = write_shapes(folder, task, train=counts["train"], val=counts["val"], imgsz=imgsz)
    more = _beside(folder)
    write_shapes(more, task, train=counts["test"], val=0, imgsz=imgsz, seed=1)
    if task == "classify":
        (more / "train").rename(folder / "test")
        return
    for kind in ("images", "labels"):
        (more / kind / "train").rename(folder / kind / "test")
    path.write_text(path.read_text() + "test: images/test\n")


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-test")


def _draw_signs(task: Task, folder: Path, imgsz: int, counts: Mapping[str, int]) -> None:
    from synthetic.scenes import draw_scene, draw_sign_crop
    from synthetic.signs import CLASS_NAMES

    for number, split in enumerate(SPLITS):
        for i in range(counts[split]):
            rng = np.random.default_rng((31, number, i))
            if task == "classify":
                class_id = i % len(CLASS_NAMES)
                crop = draw_sign_crop(rng, class_id, imgsz)
                _save(folder / split / CLASS_NAMES[class_id] / f"{i:05}.jpg", crop)
                continue
            scene, boxes, class_ids = draw_scene(rng, imgsz, imgsz)
            _save(folder / "images" / split / f"{i:05}.jpg", scene)
            centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            rows = np.concatenate([centres, sizes], 1) / imgsz
            label = folder / "labels" / split / f"{i:05}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(
                "".join(
                    f"{cls} {' '.join(f'{value:.6f}' for value in row)}\n"
                    for cls, row in zip(class_ids, rows, strict=True)
                )
            )
    if task != "classify":
        names = "\n".join(f"  {i}: {name}" for i, name in enumerate(CLASS_NAMES))
        splits = "".join(f"{split}: images/{split}\n" for split in SPLITS)
        (folder / "data.yaml").write_text(f"{splits}names:\n{names}\n")


def _save(path: Path, image: Any) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92]):
        raise SystemExit(f"Cannot write {path}.")


def builtin(recipe: Recipe, job: Any) -> Trained:
    """Train with Ultralytics' own distillation instead of the mode `distillation`."""
    import torch
    from ultralytics.cfg import get_cfg

    from dataset.inspection import check
    from settings import get_settings
    from training.start_weights import load_start
    from training.yolo import trainer as yolo
    from training.yolo.run import Run

    assert recipe.teacher is not None
    settings = get_settings()
    dataset = check(recipe.dataset, recipe.task, [Path("/")])
    teacher: Any = load_start(recipe.teacher, job.folder / "teacher", settings).model
    teacher.args = get_cfg()
    file = job.folder / "teacher.pt"
    torch.save({"model": teacher, "train_args": {}}, file)
    run = Run(recipe, job, dataset, load_start(recipe.base, job.folder / "base", settings))
    run.overrides = {"distill_model": str(file)}
    run.hooks = {"on_train_end": _unwrap}
    return yolo.train(run)


def _unwrap(trainer: Any) -> None:
    """Keep only the student in the best checkpoint, as Ultralytics' last step would do."""
    import torch

    saved = torch.load(trainer.best, weights_only=False)
    saved["ema"] = saved["ema"].student_model
    torch.save(saved, trainer.best)
