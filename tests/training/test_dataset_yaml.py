"""data.yaml as people have it. The pictures are empty files: nothing here looks into them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from errors import DatasetInvalid, Forbidden, ValidationFailed, VisionLoopError
from training.dataset_yaml import Described, describe, find_yaml, images, load
from training.findings import Findings

Tree = Callable[..., Path]

USUAL = ("images/train/a.jpg", "images/train/b.png", "images/val/c.jpg")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes `root/data.yaml` with a text, and empty files beside it."""

    def make(text: str | bytes, files: tuple[str, ...] = USUAL) -> Path:
        root = tmp_path / "root"
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        root.mkdir(exist_ok=True)
        file = root / "data.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return make


def found(file: Path) -> tuple[Described, dict[str, list[str]], list[str]]:
    findings = Findings()
    root = file.parent.resolve()
    described = describe(root / file.name, [root], findings)
    splits = images(described, [root], findings)
    shown = {
        split: sorted(str(path.relative_to(root)) for path in paths)
        for split, paths in splits.items()
    }
    return described, shown, [finding.kind for finding in findings.result()]


SPLITS = {"train": ["images/train/a.jpg", "images/train/b.png"], "val": ["images/val/c.jpg"]}


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val\nnames: [a, b]\n",
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: a, 1: b}\n",
        "path: ''\ntrain: ./images/train/\nval: ./images/val/\nnames: {1: b, 0: a}\nnc: 2\n",
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['a', 'b']\n",
        "train: ../../images/train\nval: ../../images/val\nnames: ['a', 'b']\n",
        "path: ../root\ntrain: images/train\nval: images/val\nnames: [a, b]\n",
        "path: /content/drive/signs\ntrain: images/train\nval: images/val\nnames: [a, b]\n",
        "path: C:\\Users\\Me\\root\ntrain: images\\train\nval: images\\val\nnames: [a, b]\n",
        "train: C:\\Me\\root\\images\\train\nval: D:/root/images/val\nnames: [a, b]\n",
        "train: /home/me/root/images/train\nval: /home/me/root/images/val\nnames: [a, b]\n",
        "train: images/train\nvalid: images/val\nnames: [a, b]\n",
        "train: images/train\nval: images/valid\nnames: [a, b]\n",
        "train: [images/train/a.jpg, images/train/b.png]\nval: [images/val]\nnames: [a, b]\n",
        b"\xef\xbb\xbftrain: images/train\r\nval: images/val\r\nnames:\r\n- a\r\n- b\r\n",
        "train: images/train\nval: images/val\nnames: [a, b]\n".encode("utf-16"),
        "train: images/train\nval: images/val\nnames: [a, b]\ndownload:\n",
    ],
)
def test_awkward_descriptions_find_their_pictures(tree: Tree, text: str | bytes) -> None:
    described, splits, _ = found(tree(text))
    assert splits == SPLITS
    assert described.names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have keys"),
        ("- a\n- b\n", "must have keys"),
        ("train: [\n", "line 2 is not valid YAML"),
        ("a: &a [*a]\ntrain: *a\n", "recursive"),
        (b"train: \xff\xfe\xfa\n", "not UTF-8"),
        ("names: [a]\n", "'train' is missing"),
        ("train: {a: b}\nnames: [a]\n", "'train' must be a folder"),
        ("train: images/train\nval: images/none\nnames: [a]\n", "val 'images/none' does not exist"),
        ("train: images/train\nval: images/val\n", "'names' is missing"),
        ("train: images/train\nnames: car\n", "must be a list"),
        ("train: images/train\nnames: [[a], b]\n", "plain texts"),
        ("train: images/train\nnames: {car: 0}\n", "keys of 'names' must be class ids"),
        ("train: images/train\nnames: {0: a, 99999999: b}\n", "at most 10,000"),
        ("train: images/train\nnc: many\n", "nc must be a number"),
        ("train: images/train\nnc: 10000000000000\n", "nc must be a number"),
        ("train: images/train\nnames: [a]\nkpt_shape: 17\n", "kpt_shape must be"),
        ("train: images/train\nnames: [a]\nkpt_shape: [17, 4]\n", "2 or 3"),
        (
            "train: images/train\nnames: [a]\nkpt_shape: [2, 3]\nflip_idx: [0, 2]\n",
            "each number from 0 to 1 once",
        ),
        ("train: images/train\nnames: [a]\nchannels: 4\n", "only 3"),
        (
            "train: images/train\nval: images/val\nnames: [a]\ndownload: |\n  print(1)\n",
            "remove the key",
        ),
        ("path: [a]\ntrain: images/train\nnames: [a]\n", "'path' must be one folder"),
    ],
)
def test_wrong_descriptions_are_refused_with_the_reason(
    tree: Tree, text: str | bytes, said: str
) -> None:
    with pytest.raises(DatasetInvalid) as caught:
        found(tree(text))
    assert said in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "train: ../outside\nval: images/val\nnames: [a]\n",
        "train: ../outside/a.jpg\nval: images/val\nnames: [a]\n",
        "train: images/link\nval: images/val\nnames: [a]\n",
        "train: images/linked\nval: images/val\nnames: [a]\n",
        "train: list.txt\nval: images/val\nnames: [a]\n",
        "train: linked.txt\nval: images/val\nnames: [a]\n",
        "path: ../outside\ntrain: ../outside/b\nval: images/val\nnames: [a]\n",
        "path: /\ntrain: /etc\nval: images/val\nnames: [a]\n",
        "path: /etc\ntrain: ../../../../../../etc/ssl\nval: images/val\nnames: [a]\n",
    ],
)
def test_nothing_leads_out_of_the_roots(tree: Tree, text: str) -> None:
    file = tree(text)
    outside = file.parents[1] / "outside"
    (outside / "b").mkdir(parents=True)
    (outside / "a.jpg").touch()
    (file.parent / "images/link").symlink_to(outside)
    (file.parent / "images/linked").mkdir()
    (file.parent / "images/linked/x.jpg").symlink_to(outside / "a.jpg")
    (file.parent / "list.txt").write_text("../outside/a.jpg\n")
    (file.parent / "linked.txt").write_text("images/linked/x.jpg\n")
    with pytest.raises(Forbidden, match="VISIONLOOP_DATA_ROOTS"):
        found(file)


@pytest.mark.parametrize(
    ("names", "expected", "kinds"),
    [
        ("names: {0: no, 1: yes}", ("no", "yes"), []),
        ("names: [1e3, null, 0x1F]", ("1e3", "null", "0x1F"), []),
        ("names: [stop, stop]", ("stop", "stop (1)"), ["names"]),
        ("names: {0: a, 2: c}", ("a", "class 1", "c"), ["names"]),
        ("nc: 2", ("class 0", "class 1"), ["names"]),
        ("nc: 3\nnames: [a, b]", ("a", "b"), ["nc"]),
        ("names: [限速, 'Überhol-\\nverbot']", ("限速", "Überhol-\\nverbot"), []),
    ],
)
def test_names_stay_what_they_were_written_as(
    tree: Tree, names: str, expected: tuple[str, ...], kinds: list[str]
) -> None:
    described, _, said = found(tree(f"train: images/train\nval: images/val\n{names}\n"))
    assert described.names == expected
    assert said == kinds


def test_key_points_come_with_flips_and_names(tree: Tree) -> None:
    text = (
        "train: images/train\nnames: [a]\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\n"
        "kpt_names:\n  0: [left, right]\n"
    )
    described, _, _ = found(tree(text))
    assert described.keypoints == ((2, 3), (1, 0), ("left", "right"))


def test_a_list_may_name_pictures_in_several_ways(tree: Tree) -> None:
    file = tree("train: lists/train.txt\nval: images/val\nnames: [a]\n")
    root = file.parent
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_bytes(
        f"../images/train/a.jpg\r\n{root}/images/train/b.png\r\nimages\\val\\c.jpg\r\n"
        "./gone.jpg\r\n# no picture\r\n".encode()
    )
    _, splits, kinds = found(file)
    assert splits["train"] == ["images/train/a.jpg", "images/train/b.png", "images/val/c.jpg"]
    assert kinds == ["missing_file"]


def test_folders_are_walked_without_junk_and_without_end(tree: Tree) -> None:
    files = (*USUAL, "images/train/deep/er/d.JPG", "images/train/._a.jpg", "images/train/n.txt")
    file = tree("train: images/train\nval: images/val\nnames: [a]\n", files)
    (file.parent / "images/train/loop").symlink_to(file.parent / "images")
    (file.parent / "images/train/self").symlink_to("self")
    (file.parent / "images/train/gone.jpg").symlink_to("nowhere.jpg")
    _, splits, _ = found(file)
    assert "images/train/deep/er/d.JPG" in splits["train"]
    assert not any("._a" in name or "gone" in name for name in splits["train"])


texts = st.text("ab./\\:0123[]{}&*!|>- \n", max_size=12) | st.sampled_from(["..", "C:\\a", "\0"])
values = st.recursive(
    texts | st.none() | st.integers() | st.floats() | st.booleans() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
keys = ("path", "train", "val", "test", "names", "nc", "kpt_shape", "flip_idx", "channels")


@given(st.dictionaries(st.sampled_from(keys), values), st.binary(max_size=40))
def test_any_description_is_read_or_refused_with_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object], noise: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "data.yaml"
    for data in (yaml.safe_dump(content, allow_unicode=True).encode(), noise):
        file.write_bytes(data)
        with contextlib.suppress(DatasetInvalid, Forbidden, ValidationFailed):
            found(file)


def test_an_alias_bomb_is_refused_at_once(tree: Tree) -> None:
    text = "a0: &a0 [x, x]\n"
    text += "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    for key in ("train", "names", "nc", "kpt_shape", "channels"):
        with pytest.raises(VisionLoopError):
            found(tree(f"{text}train: images/train\n{key}: *a59\n"))


def test_a_yaml_of_any_name_is_found_if_it_is_the_only_one(tree: Tree) -> None:
    file = tree("train: images/train\nnames: [a]\n")
    odd = file.rename(file.with_name("signs.yml"))
    (file.parent / "other.yaml").write_text("a: b\n")
    assert find_yaml(file.parent) == odd
    assert json.dumps(load(odd)) == '{"train": "images/train", "names": ["a"]}'
