"""The image that a name means, of many."""

from __future__ import annotations

import unicodedata

import pytest

from dataset.documents.image_names import NameIndex, comparable, content_named

STREET = ("images/train/a.jpg", "images/train/b.jpg", "images/val/c.jpg")
TWO = ("images/train/a.jpg", "images/val/a.jpg", "b/x/a.png")
DAYS = ("20240115-a.jpg", "20240116-b.jpg", "cam.jpg", "0f6142fb-0f6142fb-d.jpg", "0f6142fb-d.jpg")
ODD = ("a%20b.jpg", "a b.jpg", "was ist?.jpg", "a#1.jpg", "frame.001.jpg", "frame.jpg", "d=e.jpg",
       "a.jpg.png", "A.jpg", "照片/街 1.jpg", "café.jpg")  # fmt: skip
NFD = unicodedata.normalize("NFD", "café.jpg")


@pytest.mark.parametrize(
    ("here", "name", "wanted"),
    [
        # the whole path, the file name, whatever the folders
        (STREET, "images/train/a.jpg", "images/train/a.jpg"),
        (STREET, "a.jpg", "images/train/a.jpg"),
        (STREET, "/data/project/images/val/c.jpg", "images/val/c.jpg"),
        (STREET, r"C:\work\images\c.jpg", "images/val/c.jpg"),
        (STREET, "../images/./b.jpg", "images/train/b.jpg"),
        (STREET, "d.jpg", None),
        (STREET, "", None),
        (STREET, "..", None),
        # never by a part of the name, or with another suffix or case
        (STREET, "a.png", None),
        (STREET, "a.JPG", None),
        (STREET, "xa.jpg", None),
        (STREET, "a.jpg.jpg", None),
        (STREET, "a", "images/train/a.jpg"),
        # one of several, if the folder decides
        (TWO, "a.jpg", None),
        (TWO, "val/a.jpg", "images/val/a.jpg"),
        (TWO, "test/a.jpg", None),
        (TWO, "a.png", "b/x/a.png"),
        (TWO, "images/val/a", "images/val/a.jpg"),
        (TWO, "a", None),
        # what Label Studio puts before an upload, of the annotation's name only
        (STREET, "0f6142fb-a.jpg", "images/train/a.jpg"),
        (STREET, "/data/upload/1/0f6142fb-a.jpg", "images/train/a.jpg"),
        (STREET, "http://127.0.0.1:8080/data/upload/1/0f6142fb-a.jpg", "images/train/a.jpg"),
        (STREET, "0f6142fb-ba.jpg", None),
        (STREET, "20240115-a.jpg", None),
        (STREET, "31122023-a.jpg", None),
        (STREET, "12312023-a.jpg", None),
        (STREET, "/data/upload/1/20240115-a.jpg", "images/train/a.jpg"),
        (STREET, "99999999-a.jpg", "images/train/a.jpg"),
        (STREET, "0F6142FB-a.jpg", None),
        (DAYS, "a.jpg", None),
        (DAYS, "20240115-a.jpg", "20240115-a.jpg"),
        (DAYS, "20240117-a.jpg", None),
        (DAYS, "aaaaaaaa-20240115-a.jpg", "20240115-a.jpg"),
        (DAYS, "0f6142fb-d.jpg", "0f6142fb-d.jpg"),
        (DAYS, "/data/upload/7/0f6142fb-0f6142fb-d.jpg", "0f6142fb-0f6142fb-d.jpg"),
        (DAYS, "/data/upload/7/aaaaaaaa-0f6142fb-d.jpg", "0f6142fb-d.jpg"),
        # percent signs are letters, except in an address
        (ODD, "a%20b.jpg", "a%20b.jpg"),
        (ODD, "a b.jpg", "a b.jpg"),
        (ODD[1:], "a%20b.jpg", None),
        (ODD[1:], "https://host/x/a%20b.jpg?sig=1", "a b.jpg"),
        (ODD[1:], "/data/local-files/?d=x/a%20b.jpg", "a b.jpg"),
        (ODD, "/data/local-files/?d=x/a%20b.jpg", "a%20b.jpg"),
        (ODD, "/data/upload/1/0f6142fb-caf%C3%A9.jpg", "café.jpg"),
        (ODD, "/data/local-files/?d=d%3De.jpg", "d=e.jpg"),
        (ODD, "was ist?.jpg", "was ist?.jpg"),
        (ODD, "a#1.jpg", "a#1.jpg"),
        (ODD, "https://host/a%231.jpg", "a#1.jpg"),
        # dots, and what is called after another image
        (ODD, "frame.001", "frame.001.jpg"),
        (ODD, "frame", "frame.jpg"),
        (ODD, "frame.002", None),
        (ODD, "a.jpg.png", "a.jpg.png"),
        (ODD, "A.jpg", "A.jpg"),
        (ODD, "a.jpg", None),
        # letters are composed as the file system had it
        (ODD, NFD, "café.jpg"),
        ((NFD, "café.jpg"), NFD, NFD),
        ((NFD, "café.jpg"), "café.jpg", "café.jpg"),
        ((NFD,), "café.jpg", NFD),
        (ODD, "街 1.jpg", "照片/街 1.jpg"),
    ],
)
def test_a_name_means_one_image_or_none(
    here: tuple[str, ...], name: str, wanted: str | None
) -> None:
    assert NameIndex((one, one) for one in here).find(name).item == wanted


@pytest.mark.parametrize(
    ("here", "name", "beside", "wanted"),
    [
        (STREET, "labels/train/a", "", "images/train/a.jpg"),
        (TWO, "labels/val/a", "", "images/val/a.jpg"),
        (("images/images.jpg", "images/labels.jpg"), "labels/labels", "", "images/labels.jpg"),
        (TWO, "labels/a", "", None),
        (("a.jpg", "a.png"), "a", "", None),
        (("a.jpg", "a.jpg.png"), "a.jpg", "", "a.jpg.png"),  # a.jpg.txt is its label file
        (("a.jpg", "b.png"), "a.jpg", "", "a.jpg"),
        (("train/images/a.jpg", "valid/images/a.jpg"), "valid/labels/a", "", "valid/images/a.jpg"),
        (STREET, "0f6142fb-a", "", "images/train/a.jpg"),
        (STREET, "20240115-a", "", None),
    ],
)
def test_a_label_file_is_called_as_its_image_without_the_suffix(
    here: tuple[str, ...], name: str, beside: str, wanted: str | None
) -> None:
    assert NameIndex((one, one) for one in here).find(name, beside, stem=True).item == wanted


def test_a_folder_beside_which_a_document_lies_decides() -> None:
    index = NameIndex((one, one) for one in TWO)
    assert index.find("a.jpg", "images/val").item == "images/val/a.jpg"
    assert index.find("a.jpg", "notes").several == ["images/train/a.jpg", "images/val/a.jpg"]
    assert index.find("../val/a.jpg", "images/train").item == "images/val/a.jpg"
    videos = ("video1/images/a.jpg", "video2/images/a.jpg")
    index = NameIndex((one, one) for one in videos)
    assert index.find("a.jpg", "video2/annotations").item == videos[1]
    assert index.find("a.jpg", "annotations").item is None


@pytest.mark.parametrize(
    ("name", "content"),
    [("a" * 64 + ".jpg", "a" * 64), ("x/" + "0" * 64, "0" * 64), ("a" * 63 + ".jpg", ""),
     ("a" * 64 + ".txt", ""), ("", "")],
)  # fmt: skip
def test_a_name_may_be_a_content(name: str, content: str) -> None:
    assert content_named(name) == content


def test_file_systems_compare_names_without_case_and_composition() -> None:
    assert comparable(NFD.upper()) == comparable("café.jpg")
