"""Networks by the names that requests give them, and the weights that they start from."""

from __future__ import annotations

from typing import Any

import pytest

from errors import InvalidModelFile
from models_store.description import Task
from models_store.registry import Registry
from settings import Settings
from training.planning.base_models import choose_base, find_architecture


@pytest.mark.parametrize(
    ("text", "task", "expected"),
    [
        ("n", None, "yolov8n"),
        ("X", "segment", "yolov8x-seg"),
        ("yolov8n-pose", None, "yolov8n-pose"),
        ("yolov8n.pt", None, "yolov8n"),
        ("yolo11s", "classify", "yolo11s-cls"),
        ("yolo26n", "pose", "yolo26n-pose"),
        ("yolov10b", "detect", "yolov10b"),
        ("yolov9c", "segment", "yolov9c-seg"),
        ("mobilenetv2", None, "mobilenet_v2"),
        ("traffic_signs_yolov8n", None, None),
        ("best.pt", None, None),
    ],
)
def test_architectures_by_name(text: str, task: Task | None, expected: str | None) -> None:
    found = find_architecture(text, task)
    assert (found.name if found else None) == expected


def test_weights_of_a_scale_come_from_registry_then_folder_then_nowhere(
    registry: Registry, settings: Settings
) -> None:
    assert settings.pretrained is not None
    folder = settings.pretrained

    def base(scale: str, **changed: Any) -> tuple[str, str]:
        found = choose_base(scale, None, None, registry, settings.model_copy(update=changed))
        return found.kind, found.shown

    (folder / "yolov8s.pt").write_bytes(b"")
    (folder / "yolov8m.pt").write_bytes(b"")
    assert base("m") == ("model", registry.get("yolov8m").id)
    assert base("s") == ("file", "yolov8s.pt")
    assert base("s", pretrained=None) == ("scratch", "yolov8s")
    assert base("l", allow_download="auto") == ("download", "yolov8l.pt")
    scratch = choose_base("x", None, None, registry, settings)
    assert scratch.kind == "scratch"
    assert "from scratch" in scratch.sentence
    assert "VISIONLOOP_PRETRAINED" in scratch.sentence


def test_a_weights_file_is_looked_at_before_the_job_waits(
    registry: Registry, settings: Settings
) -> None:
    file = settings.data_roots[0] / "weights.pt"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    for named in (str(file), "weights.pt"):  # a relative path counts from the roots
        with pytest.raises(InvalidModelFile, match="Git LFS"):
            choose_base("n", named, "detect", registry, settings)
    with pytest.raises(InvalidModelFile, match=r"no weights file 'sub/weights.pt'"):
        choose_base("n", "sub/weights.pt", "detect", registry, settings)
