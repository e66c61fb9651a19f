"""Nothing outside the allowed roots is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset.inspection import check
from errors import DatasetInvalid, DatasetNotFound, Forbidden
from tests.support.data_sets import Shapes, checked


def test_what_lies_outside_is_forbidden_and_what_is_not_there_not_found(
    shapes: Shapes, tmp_path: Path
) -> None:
    folder = shapes()
    for path in ("/etc", "/no/such/thing", folder / ".." / ".."):
        with pytest.raises(Forbidden, match="VISIONLOOP_DATA_ROOTS"):
            check(path, "detect", [folder.resolve()])
    with pytest.raises(DatasetNotFound):
        check(folder / "other", "detect", [folder.resolve()])
    with pytest.raises(DatasetInvalid, match="neither a data"):
        check(folder / "images/train/0000.jpg", "detect", [folder.resolve()])
    (folder / "labels/train/0000.txt").unlink()
    (folder / "labels/train/0000.txt").symlink_to("/etc/hostname")
    with pytest.raises(Forbidden):
        checked(folder)


@pytest.mark.parametrize("link", ["train", "train/circle", "train/circle/0000.jpg"])
def test_links_out_of_a_class_tree_are_forbidden(shapes: Shapes, tmp_path: Path, link: str) -> None:
    folder = shapes("classify", 9, 3)
    outside = tmp_path / "outside"
    (folder / link).rename(outside)
    (folder / link).symlink_to(outside)
    with pytest.raises(Forbidden):
        checked(folder, "classify")


def test_a_description_that_is_a_link_out_is_forbidden(shapes: Shapes, tmp_path: Path) -> None:
    folder = shapes()
    (folder / "data.yaml").rename(tmp_path / "data.yaml")
    (folder / "data.yaml").symlink_to(tmp_path / "data.yaml")
    for path in (folder, folder / "data.yaml"):
        with pytest.raises(Forbidden):
            check(path, "detect", [folder.resolve()])
