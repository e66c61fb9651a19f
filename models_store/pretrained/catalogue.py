"""The pretrained weights that can be fetched: file, publisher, SHA-256, name in the registry.

`PUBLISHED` follows the list of Ultralytics 8.4.190 (`utils.downloads.GITHUB_ASSETS_NAMES`) as far
as the importer takes the networks; a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from errors import ValidationFailed
from models_store.description import Family, Task

ULTRALYTICS = "https://github.com/ultralytics/assets/releases/download/v8.4.0/"
PYTORCH = "https://download.pytorch.org/models/"
SUFFIXES: dict[Task, str] = {"detect": "", "segment": "-seg", "pose": "-pose", "classify": "-cls"}
MOBILENET = "mobilenet_v2"
MOBILENET_NAMES = frozenset({"mobilenet", "mobilenetv2", MOBILENET})

# Family → scales, by task. Ultralytics publishes no weights of the other tasks and scales.
PUBLISHED: dict[Task, dict[str, str]] = {
    "detect": {
        "yolov8": "nsmlx",
        "yolov9": "tsmce",
        "yolov10": "nsmblx",
        "yolo11": "nsmlx",
        "yolo12": "nsmlx",
        "yolo26": "nsmlx",
    },
    "segment": {"yolov8": "nsmlx", "yolov9": "ce", "yolo11": "nsmlx", "yolo26": "nsmlx"},
    "pose": {"yolov8": "nsmlx", "yolo11": "nsmlx", "yolo26": "nsmlx"},
    "classify": {"yolov8": "nsmlx", "yolo11": "nsmlx", "yolo26": "nsmlx"},
}
UNIVERSAL = "nsmlx"  # scales of YOLOv5u: YOLOv5 with the head of YOLOv8, as yolov5nu.pt

FAMILIES = (
    "Known are yolov8, yolov9, yolov10, yolo11, yolo12 and yolo26 with a scale (yolov8n, yolov9t, "
    "yolo11s), of yolov8, yolo11 and yolo26 also with -seg, -pose or -cls (yolov9 with -seg), "
    "yolov5nu to yolov5xu, and mobilenet."
)
"""A sentence that lists the networks whose weights can be fetched."""

# What is known by name, but cannot be imported: part of the name → the reason.
FOREIGN = (
    (re.compile(r"rt-?detr.*"), "RT-DETR is not supported"),
    (re.compile(r"yolo.*-obb"), "oriented boxes (OBB) are not supported"),
    (re.compile(r"yolo.*-(sem|depth|sem-ade20k)"), "only detection, segmentation of instances, "
     "pose and classification are supported"),
    (re.compile(r"yolo(e|-?world|v8.-world).*"), "open vocabularies are not supported"),
    (re.compile(r"yolov[345][a-z]?(-tiny|-spp)?6?"), "the original YOLOv3 and YOLOv5 are not "
     "supported; YOLOv5u is, as yolov5nu"),
    (re.compile(r"(mobile_?|fast)?sam.*"), "SAM is not supported"),
)  # fmt: skip

# SHA-256 of files of Ultralytics' release v8.4.0. Each was stated by at least two public sources
# that do not depend on each other, among them the digests that GitHub itself gives for the assets
# of the release. Files that are missing here are not checked; the hash of what came is recorded.
ULTRALYTICS_SHA256 = {
    "yolov8n.pt": "f59b3d833e2ff32e194b5bb8e08d211dc7c5bdf144b90d2c8412c47ccfc83b36",
    "yolov8s.pt": "1f47a78bf100391c2a140b7ac73a1caae18c32779be7d310658112f7ac9aa78a",
    "yolov8m.pt": "5d4a90cdc7a21786cc59cd19778e9eafff836df9e2da32524737c7ee6efe4fe5",
    "yolov8l.pt": "64c9115303f6a25575f82200d1b22ec409fa6bd7d08d0313884fc20d919478cd",
    "yolov8x.pt": "3df4ada6b4dad6d657868f2fdf7faecfb34dcfccf3a25c4b82079064718524c8",
    "yolov8n-seg.pt": "a7cd8f929e1903d78a12a48efecab430209f18dc46cb96c3599a5980c63c423c",
    "yolov8s-seg.pt": "0bac0770b55e5eb5b76a61bc535673288dcec36c2bc0cd25ee0d584c632f3413",
    "yolov8m-seg.pt": "51fa7e5ef385efa6d5b1d8e31b73399be6ed5d7ca71bda4bd4b2794bb445c4f4",
    "yolov8l-seg.pt": "ca3ec94c445aeaf79c2b57982fb451060f18a7561e2c20b4d26bb9dc1fcabf93",
    "yolov8x-seg.pt": "c333d6a7aff884ec821050eacdab29871f3edd10d996cf48746a02f8e01f1b5d",
    "yolov8n-pose.pt": "c6fa93dd1ee4a2c18c900a45c1d864a1c6f7aba75d84f91648a30b7fb641d212",
    "yolo11n.pt": "0ebbc80d4a7680d14987a577cd21342b65ecfd94632bd9a8da63ae6417644ee1",
    "yolo11s.pt": "85a76fe86dd8afe384648546b56a7a78580c7cb7b404fc595f97969322d502d5",
    "yolo11m.pt": "d5ffc1a674953a08e11a8d21e022781b1b23a19b730afc309290bd9fb5305b95",
    "yolo11l.pt": "9ebd0e09d59811db4b1d61e2bc6730649608b1ac47f8dd01e2da6bca7c20023f",
    "yolo11x.pt": "7bc158aa95c0ebfdd87f70f01653c1131b93e92522dbe15c228bcd742e773a24",
    "yolo11n-seg.pt": "55ed65c56c91713d23e8402371c6c49a6fd84f257f7dce452e8d70e41dcbe152",
    "yolo11s-seg.pt": "1caa81c0195412efa411b632bcfb8c184939dddb6ae41f6a80c41b211ff257c3",
    "yolo11m-seg.pt": "eb9a06f63e2206c35d68d839b08c362429ebecf933ad54c1ad68b2fd001c17cf",
    "yolo11l-seg.pt": "cabe90049795dfc9a370b7934d6dec7f6b9e44a20e573b0ff81b7e205512c872",
    "yolo11x-seg.pt": "4e53a5f5fd3ee2ae3361c62169c6bb3ed4ae251dd0e57606e230955aa52d919c",
    "yolo11n-pose.pt": "869e83fcdffdc7371fa4e34cd8e51c838cc729571d1635e5141e3075e9319dc0",
    "yolo12n.pt": "419ff3dca37d69bacc93a50fa0c186a1c6f9fe62fae0f108b0872829689e9ca6",
    "yolo12s.pt": "e915c2c4286e3f6f8610ef106fa3f94a7b8c19b30eccede5887e22c33ef75f58",
    "yolo12m.pt": "4c6d179786eddf6134ee469ae2f4ce04cbe4e9d1a47d6b669d9cd6b9c6c513d8",
    "yolo12l.pt": "0babd8dc8f775bb64bb052debdff3d8b9e9b57efa9d7bfa11c84bb82c3fec336",
    "yolo12x.pt": "682ce8dadee004dbe964950f1bf3eda451671815a6ed62db80b398916b9b7c6f",
    "yolo26n.pt": "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef",
    "yolo26s.pt": "646f8bc3fe0a656803d95c294f7852321748cb29d13466a1af8862e2db384a1b",
    "yolo26m.pt": "401cea9ab23ad19246ff7744859816bc599f350e93c9dd30367b6f0a0745d0b7",
    "yolo26l.pt": "9fe3c544f2b19bebad7ea41e76d7ad3d88b7c2f10d11d24430c5311f6b32db26",
    "yolo26x.pt": "9fdd44a31c504547ffb81d2c6d9e6dac3493c8eaa8b0398d3f43bae6c7003e92",
    "yolo26n-seg.pt": "361fbfabab285c3237700b6bb91d7ecfa602cd945fffda8dbe1242829b71e73f",
    "yolo26s-seg.pt": "3da1d83e31caec96f9300eb4064f4f62882c133c7c264d63dfe61a7c197837a4",
    "yolo26m-seg.pt": "16b636f04e8fb6a325b3370f22dc5e5535ff473e384f4d041fd28d788f6ee9f5",
    "yolo26l-seg.pt": "636024306410afa1732692322fba57d22ea2b1c2f07613fcee131a93d7dd380c",
    "yolo26x-seg.pt": "92b3de0065766a17180d6219858717dc9d03cdce8a3ca9576c97fd75aabb64f3",
}


@dataclass(frozen=True)
class PretrainedFile:
    """A file of pretrained weights.

    Attributes:
        network: Name of the network: `yolov8n-seg`, `yolov5nu`, `mobilenet_v2`.
        file: Name of the file.
        publisher: Address of the folder where its publisher offers it.
        family: The family that the file must be of.
        task: The task that it was trained for.
        sha256: The start of its SHA-256, or all of it; empty: not known.
    """

    network: str
    file: str
    publisher: str
    family: Family
    task: Task
    sha256: str = ""

    @property
    def data(self) -> str:
        """What the weights were trained on."""
        return "ImageNet" if self.task == "classify" else "COCO"

    @property
    def model_name(self) -> str:
        """Name of the model in the registry."""
        return f"{self.network}-{self.data.lower()}"


def pretrained_file(network: str) -> PretrainedFile | None:
    """The file of a network, in lower case, as `yolov8n-seg`; None: no weights are published."""
    return _FILES.get(network)


def requested(text: str) -> PretrainedFile:
    """The file of the network that a user names; `n` means `yolov8n`, `yolov8n.pt` is the same.

    Raises:
        ValidationFailed: There is no such network; the message lists the families.
    """
    word = text.strip().lower().removesuffix(".pt").removesuffix(".pth")
    if word in MOBILENET_NAMES:
        word = MOBILENET
    if word in tuple("nsmlx"):
        word = f"yolov8{word}"
    if (file := _FILES.get(word)) is not None:
        return file
    raise ValidationFailed(unknown_network(text))


def unknown_network(text: str) -> str:
    """A message for a network whose weights cannot be fetched."""
    if reason := foreign(text):
        return f"{text[:60]!r} cannot be used: {reason}. {FAMILIES}"
    return f"There are no pretrained weights of a network {text[:60]!r}. {FAMILIES}"


def foreign(text: str) -> str | None:
    """Why a network that exists elsewhere cannot be used here; None: no such network is known."""
    word = text.strip().lower().removesuffix(".pt").removesuffix(".pth")
    return next((reason for pattern, reason in FOREIGN if pattern.fullmatch(word)), None)


def _files() -> dict[str, PretrainedFile]:
    found: dict[str, PretrainedFile] = {}

    def add(network: str, task: Task) -> None:
        file = f"{network}.pt"
        known = ULTRALYTICS_SHA256.get(file, "")
        found[network] = PretrainedFile(network, file, ULTRALYTICS, "yolo", task, known)

    for task, families in PUBLISHED.items():
        for family, scales in families.items():
            for scale in scales:
                add(f"{family}{scale}{SUFFIXES[task]}", task)
    for scale in UNIVERSAL:
        add(f"yolov5{scale}u", "detect")
    # torchvision 0.29 states the start of the SHA-256 in the file's name and checks it.
    found[MOBILENET] = PretrainedFile(
        MOBILENET, "mobilenet_v2-7ebf99e0.pth", PYTORCH, "mobilenet", "classify", "7ebf99e0"
    )
    return found


_FILES = _files()
