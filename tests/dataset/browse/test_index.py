"""The index of a revision's images: filters, counts, pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset.browse.health import Health
from dataset.browse.index import FACETS, ImageFilter, ImageIndex, IndexedImage, State, write_index


def image(number: int, split: str, state: State, *labels: str, author: str = "") -> IndexedImage:
    return IndexedImage(
        content=f"{number:064x}",
        name=f"Straße/{number:03}.png",
        file=f"data/{number:03}.png",
        width=100,
        height=50,
        split=split,
        state=state,
        author=author,
        classes={label: labels.count(label) for label in dict.fromkeys(labels)},
        boxes=[(label, 0.1, 0.1, 0.5, 0.9) for label in labels],
        problems={"small_image": "9 × 9"} if number % 3 == 0 else {},
    )


IMAGES = [
    image(0, "train", "labelled", "car", "car", author="original"),
    image(1, "train", "corrected", "car", "dog", author="person"),
    image(2, "train", "empty", author="original"),
    image(3, "val", "labelled", "dog", author="original"),
    image(4, "", "unlabelled"),
    image(5, "", "predicted", "car", author="m:1"),
]


@pytest.fixture
def index(tmp_path: Path) -> ImageIndex:
    write_index(tmp_path / "index.sqlite", iter(IMAGES), {"task": "detect"})
    return ImageIndex(tmp_path / "index.sqlite")


def found(index: ImageIndex, wanted: ImageFilter) -> list[int]:
    numbers = [row["position"] - 1 for row in index.page(wanted, 0, 100).rows]
    assert index.count(wanted) == len(numbers)
    return numbers


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ImageFilter(), [0, 1, 2, 3, 4, 5]),
        (ImageFilter(split="train"), [0, 1, 2]),
        (ImageFilter(split="none"), [4, 5]),
        (ImageFilter(label="dog"), [1, 3]),
        (ImageFilter(label="car", split="train", state="labelled"), [0]),
        (ImageFilter(state="unlabelled"), [4]),
        (ImageFilter(author="m:1"), [5]),
        (ImageFilter(problem="small_image"), [0, 3]),
        (ImageFilter(text="STRASSE/00"), [0, 1, 2, 3, 4, 5]),
        (ImageFilter(text="3.P"), [3]),
        (ImageFilter(text="%"), []),
        (ImageFilter(label="'; DROP TABLE images; --"), []),
        (ImageFilter(state="draft", drafts=frozenset({f"{2:064x}", "x"})), [2]),
    ],
)
def test_filters(index: ImageIndex, wanted: ImageFilter, expected: list[int]) -> None:
    assert found(index, wanted) == expected


def test_pages_have_every_image_once(index: ImageIndex) -> None:
    seen, after = [], 0
    while True:
        page = index.page(ImageFilter(), after, 4)
        seen += [row["name"] for row in page.rows]
        if page.following is None:
            break
        after = page.following
    assert seen == [image.name for image in IMAGES]


def test_counts_of_a_filter_are_of_what_the_other_filters_leave(index: ImageIndex) -> None:
    plain = index.facets(ImageFilter())
    assert set(plain) == set(FACETS)
    assert plain["split"] == {"train": 3, "val": 1, "none": 2}
    assert plain["class"] == {"car": 3, "dog": 2}
    assert plain["author"] == {"original": 3, "person": 1, "m:1": 1}
    some = index.facets(ImageFilter(label="car", split="train", drafts=frozenset({f"{1:064x}"})))
    assert some["split"] == {"train": 2, "none": 1}
    assert some["class"] == {"car": 2, "dog": 1}
    assert some["state"] == {"labelled": 1, "corrected": 1, "draft": 1}


def test_a_row_has_what_a_listing_shows(index: ImageIndex) -> None:
    row = index.page(ImageFilter(), 0, 1).rows[0]
    assert (row["classes"], row["objects"], row["split"]) == ({"car": 2}, 2, "train")
    assert row["boxes"][0] == ["car", 0.1, 0.1, 0.5, 0.9]
    assert index.path_of(f"{3:064x}") == "data/003.png"
    assert index.path_of("x") is None
    assert index.note("task") == "detect"


def test_health_counts_classes_sizes_and_objects() -> None:
    health = Health(["car", "dog", "bus"])
    for one in IMAGES:
        health.update(one)
    shown = health.to_json()
    assert [split["split"] for split in shown["splits"]] == ["train", "val", ""]
    assert shown["splits"][0]["states"] == {"labelled": 1, "corrected": 1, "empty": 1}
    by_name = {row["name"]: row for row in shown["classes"]}
    assert by_name["car"] == {
        "name": "car",
        "objects": {"train": 3, "val": 0, "none": 1},
        "images": {"train": 2, "val": 0, "none": 1},
    }
    assert by_name["bus"]["objects"] == {"train": 0, "val": 0, "none": 0}
    assert sum(shown["box_shares"]["counts"]) == 6
    assert sum(shown["objects_per_image"]["counts"]) == 5  # one is not annotated
    assert shown["image_sizes"] == [{"width": 100, "height": 50, "images": 6}]
