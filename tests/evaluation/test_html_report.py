"""The report as a page: whole, safe with any name, and never asking another server."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.html_report import MOST_CLASSES, page
from tests.support.made_reports import report

HOSTILE = "<script>alert('x')</script> & \"sign\""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("plots/f1_confidence.png", "plots/confusion.png", "worst/00.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return tmp_path


def made(classes: dict[str, float], **more: Any) -> dict[str, Any]:
    labels = [*classes, "background"]
    matrix = np.eye(len(labels), dtype=int) * 3
    matrix[0, -1] = 2
    return report("signs:v1", classes) | {
        "confusion": {"labels": labels, "matrix": matrix.tolist(), "confidence": 0.25},
        "at_best_f1": {"confidence": 0.4, "precision": 0.9, "recall": 0.8, "f1_score": 0.85},
        "at_serving": {"confidence": 0.25, "precision": 0.8, "recall": 0.9, "f1_score": 0.85},
        "plots": ["confusion", "f1_confidence"],
        "worst": [{"image": "a/b.jpg", "reason": "missed 2", "score": 2, "file": "worst/00.jpg"}],
        "definitions": {"accuracy": "TP / (TP + FP + FN)"},
        "notes": ["A note."],
        "dataset": {
            "name": "street",
            "fingerprint": "f" * 64,
            "split": "val",
            "images": 1200,
            "instances": 3400,
        },
        **more,
    }


class Reader(HTMLParser):
    """Keeps what a page consists of; fails on what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_is_on_the_page(folder: Path) -> None:
    text = Reader(page(made({"stop": 0.5, "yield": 0.25}), folder, "e1")).text
    for part in (
        "signs:v1",
        "street, split val: 1,200 images, 3,400 objects",
        "0.375",  # the mean
        "best F1",
        "A note.",
        "stop",
        "background (missed)",
        "a/b.jpg",
        "missed 2",
        "TP / (TP + FP + FN)",
        "Evaluation e1",
    ):
        assert part in text, part


def test_a_tile_names_the_confidence_of_its_metric(folder: Path) -> None:
    found = made({"stop": 0.5})
    assert "F1 at confidence" not in Reader(page(found, folder)).text
    found["figures"] |= {"f1_confidence": 0.3204}
    text = Reader(page(found, folder)).text
    for title in ("Precision", "Recall", "F1"):
        assert f"{title} at confidence 0.320" in text
    assert text.count("at confidence 0.320") == 3


def test_old_and_new_classes_come_first(folder: Path) -> None:
    """Without an incremental training there is nothing of it."""
    text = Reader(page(made({"stop": 0.5}), folder)).text
    assert "Forgotten" not in text
    row = {"name": HOSTILE, "kind": "old", "objects": 7, "on": "old", "before": 0.9, "after": 0.8}
    found = {"metric": "mAP50_95", "old_classes_before": 0.9, "old_classes": 0.8}
    found |= {"forgotten": 0.1, "new_classes": None, "summary": "Old classes: …", "classes": [row]}
    reader = Reader(page({"forgetting": found} | made({"stop": 0.5}), folder))
    assert "script" not in {tag for tag, _ in reader.tags}
    places = [
        reader.text.index(part)
        for part in (
            "Old and new classes (mAP50-95)",
            "0.900Old classes before0.800Old classes after0.100Forgotten–New classes",
            "Old classes: …",
            f"{HOSTILE}old0.9000.8007old data",
            "All classes, on the val split of the new data",
            "Precision",
        )
    ]
    assert places == sorted(places)


def test_pictures_are_inside_and_nothing_is_fetched_from_anywhere(folder: Path) -> None:
    found = page(made({"stop": 0.5}), folder)
    reader = Reader(found)
    sources = [attrs["src"] or "" for tag, attrs in reader.tags if tag == "img"]
    assert len(sources) == 2
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", found)
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "link", "iframe", "a", "object"})


def test_names_cannot_become_markup(folder: Path) -> None:
    hostile = made({HOSTILE: 0.5, "stop": 0.1}, notes=[HOSTILE], definitions={HOSTILE: HOSTILE})
    hostile["worst"][0] |= {"image": HOSTILE, "name": HOSTILE, "reason": HOSTILE}
    hostile["dataset"]["name"] = HOSTILE
    reader = Reader(page(hostile, folder, HOSTILE))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert reader.text.count(HOSTILE) >= 10
    used = {name for _, attrs in reader.tags for name in attrs}
    assert used == {"title", "class", "style", "src", "alt", "lang", "charset", "name", "content"}


def test_what_does_not_occur_is_left_out_of_the_matrix(folder: Path) -> None:
    quiet = made({"stop": 0.5, "tram": 0.5})
    quiet["confusion"]["matrix"][1][1] = 0
    found = page(quiet, folder)
    assert "1 of 2 classes are not shown, because they do not occur." in found
    assert len(re.findall(r'<td class="right', found)) == 2  # stop, and nothing where nothing is


def test_of_very_many_classes_those_with_most_mistakes_are_shown(folder: Path) -> None:
    count = MOST_CLASSES + 40
    many = made({f"sign {i}": 0.5 for i in range(count)})
    many["confusion"]["matrix"][count - 1][0] = 9
    found = page(many, folder)
    assert "40 of 120 classes are not shown, because they have no or few errors." in found
    assert len(re.findall("<thead><tr><th></th>(<th><span>.*?</span></th>)+", found)) == 1
    assert f"sign {count - 1} → sign 0: 9 (75 %)" in found


def test_a_classifier_has_no_background_and_no_thresholds(folder: Path) -> None:
    classifier = report("signs:v1", {"stop": 0.5, "yield": 1.0}, kind="classification") | {
        "confusion": {"labels": ["stop", "yield"], "matrix": [[1, 1], [0, 2]], "confidence": None},
        "thresholds": {},
    }
    text = Reader(page(classifier, folder)).text
    assert "nothing" not in text
    assert "Thresholds" not in text
    assert re.search(r"TruthPredictedCount\s*stopyield1", text)


def test_a_page_is_made_although_its_pictures_are_gone(tmp_path: Path) -> None:
    reader = Reader(page(made({"stop": 0.5}), tmp_path))
    assert "img" not in {tag for tag, _ in reader.tags}


def test_an_image_has_the_name_that_users_know_beside_that_of_its_file(folder: Path) -> None:
    report = made({"stop": 0.1})
    report["worst"][0] |= {"image": "images/val/9f86d0.jpg", "name": "photos/me & you.jpg"}
    text = Reader(page(report, folder, "x")).text
    assert "photos/me & you.jpg (images/val/9f86d0.jpg)" in " ".join(text.split())
