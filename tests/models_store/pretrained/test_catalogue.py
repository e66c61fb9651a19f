"""The list of files that can be fetched."""

from __future__ import annotations

import re

import pytest

from errors import ValidationFailed
from models_store.pretrained.catalogue import (
    MOBILENET,
    ULTRALYTICS_SHA256,
    pretrained_file,
    requested,
)
from training.planning.base_models import find_architecture


def test_ultralytics_publishes_every_file_of_the_list() -> None:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

    from models_store.pretrained.catalogue import _FILES

    ours = {file.file for file in _FILES.values() if file.network != MOBILENET}
    assert ours <= GITHUB_ASSETS_NAMES
    assert set(ULTRALYTICS_SHA256) <= ours
    lacking = {
        name for name in GITHUB_ASSETS_NAMES - ours if re.match(r"yolo(v8|11|12|26)\w", name)
    }
    foreign = r"yolo.*(-obb|-oiv7|-world|-worldv2|-sem|-depth|-objv1|-distill|-reid|-grayscale|-p6)"
    assert [name for name in sorted(lacking) if not re.match(foreign, name)] == []


def test_torchvision_publishes_the_mobilenet_of_the_list() -> None:
    from torchvision.models import MobileNet_V2_Weights

    file = requested("mobilenet")
    assert f"{file.publisher}{file.file}" == MobileNet_V2_Weights.IMAGENET1K_V2.url
    assert file.file == f"{MOBILENET}-{file.sha256}.pth"


def test_every_file_is_of_a_network_that_can_be_trained() -> None:
    from models_store.pretrained.catalogue import _FILES

    for network, file in _FILES.items():
        found = find_architecture(network, None)
        assert found is not None
        assert (found.name, found.family, found.task) == (network, file.family, file.task)


@pytest.mark.parametrize(
    ("text", "network", "model"),
    [
        ("yolo11n", "yolo11n", "yolo11n-coco"),
        (" YOLOv8s-seg.pt", "yolov8s-seg", "yolov8s-seg-coco"),
        ("n", "yolov8n", "yolov8n-coco"),
        ("yolov5nu", "yolov5nu", "yolov5nu-coco"),
        ("yolo26x-cls", "yolo26x-cls", "yolo26x-cls-imagenet"),
        ("MobileNet", "mobilenet_v2", "mobilenet_v2-imagenet"),
    ],
)
def test_networks_as_users_name_them(text: str, network: str, model: str) -> None:
    file = requested(text)
    assert (file.network, file.model_name) == (network, model)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("yolov7n", "no pretrained weights of a network 'yolov7n'"),
        ("yolov8n-obb", "oriented boxes"),
        ("yolo26n-obb.pt", "oriented boxes"),
        ("rtdetr-l", "RT-DETR"),
        ("yolov5n", "YOLOv5u is, as yolov5nu"),
        ("yolov8s-worldv2", "open vocabularies"),
        ("yolo26n-sem", "segmentation of instances"),
        ("sam2_b", "SAM"),
        ("yolo12n-seg", "no pretrained weights"),
    ],
)
def test_other_networks_are_refused_with_the_families(text: str, reason: str) -> None:
    assert pretrained_file(text) is None
    with pytest.raises(ValidationFailed, match=reason) as refused:
        requested(text)
    for family in ("yolov8", "yolov9", "yolov10", "yolo11", "yolo12", "yolo26", "yolov5nu"):
        assert family in refused.value.message
