"""Training of the two starter models on drawn images only.

    python -m synthetic.train_starters classifier
    python -m synthetic.train_starters detector

Images are drawn while training and never stored. A checkpoint is written every minute; the
same command resumes from it. The last step writes `model.safetensors` (fp16) and `model.json`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from files import atomic_path
from models_store import ultralytics_env
from models_store.description import Preprocessing
from models_store.weight_ema import WeightEMA
from models_store.weights import describe, save_model
from shell import Parser
from synthetic.camera import STREET, VIDEO
from synthetic.scenes import draw_scene, draw_sign_crop
from synthetic.signs import CLASS_NAMES

CROP = 64  # side of the classifier's input, pixels
MEAN = STD = 0.5  # classifier input: (x / 255 - MEAN) / STD
SMALL_SCENES = 12_000  # the detector's first scenes are small
SMALL_SIDES, SIDES = (128, 160, 192), (160, 192, 224, 320)  # sides of scenes, pixels
FOLDERS = {"classifier": "traffic_signs_mobilenet_v2", "detector": "traffic_signs_yolov8n"}
SAVE_EVERY = 60.0  # seconds


@dataclass
class Budget:
    """The duration of a training: a number of steps, or minutes of wall-clock time if given."""

    steps: int
    minutes: float | None
    spent: float = 0.0  # seconds so far, including earlier runs

    def progress(self, step: int) -> float:
        """Share of the training that is done, 0 to 1."""
        done = self.spent / (self.minutes * 60) if self.minutes else step / self.steps
        return min(1.0, done)


class Crops(Dataset[tuple[Tensor, int]]):
    """Dataset of synthetic close-ups: image uint8 (3, CROP, CROP) and class id, drawn by index.

    Curriculum learning: the first images are well exposed, later ones as dark and blurred as
    video. From hard images alone, an untrained network does not learn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        rng = np.random.default_rng((self.seed, index))
        class_id = int(rng.integers(len(CLASS_NAMES)))
        easy = rng.random() < max(0.1, 1 - index / 30_000)
        image = draw_sign_crop(rng, class_id, CROP, STREET if easy else VIDEO)
        return torch.from_numpy(image).permute(2, 0, 1), class_id


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Dataset of synthetic scenes: image uint8 (3, side, side) and rows (class, cx, cy, w, h).

    Rows are relative to the image. All scenes of a batch have the same size. Small scenes come
    first: early in the training they are as useful as large ones and take a third of the time.
    Scenes that are not square are padded with grey, as in serving.
    """

    def __init__(self, seed: int, batch: int) -> None:
        self.seed = seed
        self.batch = batch

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        shared = np.random.default_rng((self.seed, 1, index // self.batch))
        side = int(shared.choice(SMALL_SIDES if index < SMALL_SCENES else SIDES))
        rng = np.random.default_rng((self.seed, 2, index))
        shape = rng.choice(((1.0, 0.75), (0.75, 1.0), (1.0, 1.0)), p=(0.3, 0.3, 0.4))
        width, height = (int(side * s) for s in shape)
        scene, boxes, class_ids = draw_scene(rng, width, height)
        image = np.full((side, side, 3), 114, np.uint8)
        x, y = (side - width) // 2, (side - height) // 2
        image[y : y + height, x : x + width] = scene
        xyxy = (boxes + np.array([x, y, x, y])) / side
        rows = np.concatenate(
            [class_ids[:, None], (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], 1
        )
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(rows).float()


def collate_scenes(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Collate scenes into a batch of Ultralytics' format for its losses."""
    images, rows = zip(*samples, strict=True)
    owner = [torch.full((len(r),), float(i)) for i, r in enumerate(rows)]
    labels = torch.cat(rows)
    return {
        "img": torch.stack(images),
        "batch_idx": torch.cat(owner),
        "cls": labels[:, :1],
        "bboxes": labels[:, 1:],
    }


def train(
    model: nn.Module,
    loss_of: Callable[[nn.Module, Any], tuple[Tensor, Tensor]],
    batches: Callable[[int], Iterable[Any]],
    budget: Budget,
    checkpoint: Path,
    lr: float,
    autocast: bool,
) -> nn.Module:
    """The training loop: AdamW, warm-up and cosine schedule, gradient clipping, weight average.

    Args:
        model: The network, in training mode.
        loss_of: Maps the model and a batch to the loss and one metric to log.
        batches: Maps a step to the batches from this step on.
        budget: The duration of the training.
        checkpoint: File of the checkpoint; training resumes from it if it exists.
        lr: Peak learning rate.
        autocast: Whether the forward pass runs in bfloat16.

    Returns:
        The network with averaged weights (EMA).
    """
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))
    average = WeightEMA(model, decay=0.999, warmup=500.0)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, budget.spent = state["step"], state["spent"]
        average.updates = step
        print(f"Resumed at step {step}.", flush=True)
    started, saved = time.monotonic() - budget.spent, time.monotonic()
    first = step
    shown_loss, shown_figure = 0.0, 0.0
    for batch in batches(step):
        progress = budget.progress(step)
        if progress >= 1:
            break
        rate = (
            lr * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
            loss, figure = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
        average.update(model)
        keep = min(0.98, 1 - 1 / (step - first))
        shown_loss = shown_loss * keep + float(loss.detach()) * (1 - keep)
        shown_figure = shown_figure * keep + float(figure) * (1 - keep)
        now = time.monotonic()
        budget.spent = now - started
        if step % 50 == 0:
            print(
                f"{progress:6.1%}  step {step}  loss {shown_loss:.3f}  metric {shown_figure:.3f}  "
                f"lr {rate:.2e}  {budget.spent:.0f} s",
                flush=True,
            )
        if now - saved > SAVE_EVERY:
            _save(checkpoint, model, average, optimizer, step, budget.spent)
            saved = now
    _save(checkpoint, model, average, optimizer, step, budget.spent)
    return average.model


def _save(
    path: Path,
    model: nn.Module,
    average: WeightEMA,
    optimizer: torch.optim.Optimizer,
    step: int,
    spent: float,
) -> None:
    """Write a checkpoint atomically: a killed process leaves the previous one."""
    state = {
        "model": model.state_dict(),
        "average": average.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "spent": spent,
    }
    with atomic_path(path) as target:
        torch.save(state, target)


def _loader(
    dataset: Dataset[Any], batch: int, start: int, workers: int, **options: Any
) -> Iterator[Any]:
    """An endless iterator over batches of consecutive indices, from step `start` on."""
    indices = range(start * batch, 1 << 40)
    return iter(
        DataLoader(
            dataset,
            batch_size=batch,
            sampler=indices,
            num_workers=workers,
            worker_init_fn=_one_thread if workers else None,
            **options,
        )
    )


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def build_classifier() -> nn.Module:
    """MobileNetV2 with one output per class."""
    from torchvision.models import mobilenet_v2  # slow import; only the classifier needs it

    return mobilenet_v2(weights=None, num_classes=len(CLASS_NAMES))


def train_classifier(budget: Budget, checkpoint: Path, workers: int, seed: int = 0) -> nn.Module:
    """Train MobileNetV2 on close-ups: cross-entropy with label smoothing, batches of 32."""
    batch = 32
    torch.manual_seed(seed)
    model = build_classifier().train().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.02  # less noisy than the default 0.1 in a long training
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)

    def loss_of(model: nn.Module, samples: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, class_ids = samples
        x = (images.float() / 255 - MEAN) / STD
        scores = model(x.contiguous(memory_format=torch.channels_last))
        return criterion(scores, class_ids), (scores.argmax(1) == class_ids).float().mean()

    def batches(start: int) -> Iterator[Any]:
        return _loader(Crops(seed), batch, start, workers)

    return train(model, loss_of, batches, budget, checkpoint, lr=1.5e-3, autocast=False)


def build_detector() -> nn.Module:
    """YOLOv8n with one class per traffic sign."""
    ultralytics_env.prepare()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    model: Any = DetectionModel("yolov8n.yaml", nc=len(CLASS_NAMES), verbose=False)
    model.args = get_cfg()
    model.names = dict(enumerate(CLASS_NAMES))
    return model


def train_detector(
    budget: Budget,
    checkpoint: Path,
    workers: int,
    seed: int = 0,
) -> nn.Module:
    """Train YOLOv8n on scenes with Ultralytics' loss, batches of 8."""
    batch = 8
    torch.manual_seed(seed)
    model: Any = build_detector().train().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # Ultralytics' 0.03 is too slow for a short training
    criterion = model.init_criterion()

    def loss_of(model: nn.Module, scenes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        x = (scenes["img"].float() / 255).contiguous(memory_format=torch.channels_last)
        loss, parts = criterion(model(x), scenes)
        return loss.sum() / batch, parts["cls_loss"]

    def batches(start: int) -> Iterator[Any]:
        scenes = Scenes(seed, batch)
        return _loader(scenes, batch, start, workers, collate_fn=collate_scenes)

    return train(model, loss_of, batches, budget, checkpoint, lr=1.5e-3, autocast=True)


def publish(model: nn.Module, kind: str, out: Path) -> Path:
    """Write a trained starter as a model folder: fp16 weights and their description.

    Args:
        model: The trained network.
        kind: `classifier` or `detector`.
        out: The parent folder of the starters.

    Returns:
        The model's folder.
    """
    folder = out / FOLDERS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    source = f"{len(CLASS_NAMES)} German traffic signs, trained only on synthetic images."
    if kind == "classifier":
        how = Preprocessing(resize="squash", imgsz=CROP, mean=(MEAN,) * 3, std=(STD,) * 3)
        description = describe(
            model, CROP, names=CLASS_NAMES, preprocessing=how, description=source
        )
    else:
        description = describe(model, 640, names=CLASS_NAMES, description=source)
    save_model(folder, model, description)
    return folder


def main() -> None:
    """Command line: trains one starter model and writes it as a model folder."""
    parser = Parser(
        prog="python -m synthetic.train_starters",
        description="Trains a starter model on synthetic images and writes its weights.",
        epilog="After an interruption, the same command resumes from the checkpoint in --work.",
    )
    parser.add_argument(
        "model", choices=("classifier", "detector"), help="the starter model to train"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="number of batches to train (default: 6000, or 8000 for the detector)",
    )
    parser.add_argument(
        "--minutes", type=float, help="train for this many minutes, instead of --steps"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="number of processes that draw images (default: 1)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="number of threads of the training process (default: those of PyTorch)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the images and weights (default: 0)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/starters"),
        help="folder for the checkpoints (default: runs/starters)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("models_store/starter"),
        help="folder for the finished models (default: models_store/starter)",
    )
    args = parser.parse_args()
    checkpoint = args.work / f"{args.model}.pt"
    steps = args.steps or (6000 if args.model == "classifier" else 8000)
    budget = Budget(steps, args.minutes)
    recipe = train_classifier if args.model == "classifier" else train_detector
    torch.set_num_threads(args.threads)
    model = recipe(budget, checkpoint, args.workers, seed=args.seed)
    print(f"Wrote {publish(model, args.model, args.out)}.")


if __name__ == "__main__":
    main()
