"""Clients that use a server while it is disturbed, and record its answers."""

from __future__ import annotations

import io
import json
import random
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import numpy as np
from PIL import Image

PAUSE = 0.05  # seconds between the calls of a client
SIZE = 64  # side of the annotated images in pixels
NAME = "frame.png"
TOOL = {"tool": "object_detection"}

OK, REFUSED, OTHER, DROPPED = "ok", "refused", "other", "dropped"
"""Outcomes of a call: success; 503 with Retry-After, or 507; another error; no answer."""


@dataclass(frozen=True)
class Call:
    """One call of a client."""

    path: str
    began: float  # seconds, monotonic
    ended: float
    outcome: str
    detail: str = ""


@dataclass
class Span:
    """The calls that ended in a span of time."""

    calls: Sequence[Call]

    def count(self, outcome: str) -> int:
        return sum(call.outcome == outcome for call in self.calls)

    def details(self) -> Counter[str]:
        """The calls with another error or no answer: description → number."""
        odd = (call for call in self.calls if call.outcome in (OTHER, DROPPED))
        return Counter(f"{call.path}: {call.detail}" for call in odd)

    def slowest(self) -> float:
        """The longest duration of a call, in seconds."""
        return max((call.ended - call.began for call in self.calls), default=0.0)

    def outage(self) -> float:
        """Seconds from the first failure to the last one; 0 if there was none."""
        failed = [call.ended for call in self.calls if call.outcome != OK]
        return max(failed) - min(failed) if failed else 0.0


@dataclass
class Ledger:
    """The data that the server acknowledged, and must still have at the end."""

    corrections: dict[str, list[list[int]]] = field(default_factory=dict)
    """Dataset → the boxes that its image may have: first the last acknowledged box, then the boxes
    of later calls without a success."""
    jobs: list[str] = field(default_factory=list)


class Traffic:
    """Threads that call the server again and again; each thread waits for the answer of its call.

    Args:
        url: The server's address.
        images: Encoded images to recognise.
    """

    def __init__(self, url: str, images: Sequence[bytes]) -> None:
        self.url = url
        self.images = images
        self.calls: list[Call] = []
        self.ledger = Ledger()
        self.annotating = threading.Lock()  # held while the ledger and the server may differ
        self._over = threading.Event()
        works: list[Callable[[httpx.Client, random.Random], None]]
        works = [self._infer, self._infer, self._pre_label, self._read]
        works.append(self._annotate)
        self._threads = [
            threading.Thread(target=self._run, args=(work, number), daemon=True)
            for number, work in enumerate(works)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)

    def since(self, moment: float, path: str = "") -> Span:
        """The calls that ended after a moment of `time.monotonic`, of one path or of all."""
        return Span([c for c in list(self.calls) if c.ended >= moment and c.path.startswith(path)])

    def _run(self, work: Callable[[httpx.Client, random.Random], None], number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=self.url, timeout=80) as client:
            while not self._over.is_set():
                work(client, chance)
                self._over.wait(PAUSE)

    def _call(self, client: httpx.Client, method: str, path: str, **options: Any) -> Any:
        """Make a call and record it. Returns the JSON of a successful answer, otherwise None."""
        began = time.monotonic()
        outcome, detail, body = OK, "", None
        try:
            answer = client.request(method, path, **options)
            if answer.is_success:
                body = answer.json()
            elif answer.status_code == 507 or (
                answer.status_code == 503 and "retry-after" in answer.headers
            ):
                outcome = REFUSED
            else:
                outcome, detail = OTHER, f"{answer.status_code} {answer.text[:120]}"
        except httpx.TransportError as error:
            outcome, detail = DROPPED, type(error).__name__
        self.calls.append(Call(path, began, time.monotonic(), outcome, detail))
        return body

    def _infer(self, client: httpx.Client, chance: random.Random) -> None:
        self._call(client, "POST", "/infer", files={"image": chance.choice(self.images)})

    def _pre_label(self, client: httpx.Client, chance: random.Random) -> None:
        sent = {"image": chance.choice(self.images)}
        fields = {"tool": "object_detection"}
        self._call(client, "POST", "/api/auto_annotate", files=sent, data=fields)

    def _read(self, client: httpx.Client, chance: random.Random) -> None:
        self._call(client, "GET", chance.choice(("/models", "/jobs", "/api/datasets")))

    def _annotate(self, client: httpx.Client, chance: random.Random) -> None:
        """Upload a dataset, or correct one that was uploaded before."""
        with self.annotating:
            self._change_a_dataset(client, chance)

    def _change_a_dataset(self, client: httpx.Client, chance: random.Random) -> None:
        known = list(self.ledger.corrections)
        box = [chance.randrange(40), chance.randrange(40), 20, 20]
        if len(known) < 3 or chance.random() < 0.1:
            sent = {"file": ("set.zip", dataset_zip(chance.randrange(10**9), box))}
            if made := self._call(client, "POST", "/api/datasets", files=sent):
                self.ledger.corrections[made["id"]] = [box]
            return
        chosen = chance.choice(known)
        path = f"/api/datasets/{chosen}/annotations"
        if self._call(client, "POST", path, json=coco(box)):
            self.ledger.corrections[chosen] = [box]
        else:
            self.ledger.corrections[chosen].append(box)


def dataset_zip(seed: int, box: list[int]) -> bytes:
    """A dataset of two images: the train image has the box, the val image has none."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data.yaml", "train: images/train\nval: images/val\nnames: [sign]\n")
        for number, name in enumerate((f"train/{NAME}", "val/other.png")):
            random = np.random.default_rng((seed, number))
            image = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(image, "PNG")
            archive.writestr(f"images/{name}", image.getvalue())
        x, y, width, height = (value / SIZE for value in box)
        line = f"0 {x + width / 2} {y + height / 2} {width} {height}\n"
        archive.writestr(f"labels/train/{NAME.replace('.png', '.txt')}", line)
        archive.writestr("labels/val/other.txt", "")
    return packed.getvalue()


def coco(box: list[int]) -> dict[str, Any]:
    """A COCO document of one image with one box: x, y, width, height in pixels."""
    return {
        "images": [{"id": 1, "file_name": NAME, "width": SIZE, "height": SIZE}],
        "categories": [{"id": 1, "name": "sign"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
        ],
    }


def exported_box(packed: bytes) -> list[int] | None:
    """The only box of a COCO export, in whole pixels; None if there is not exactly one box."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        found = [
            annotation["bbox"]
            for name in archive.namelist()
            if name.endswith(".json")
            for annotation in json.loads(archive.read(name)).get("annotations", ())
        ]
    return [round(value) for value in found[0]] if len(found) == 1 else None
