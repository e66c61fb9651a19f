"""data.yaml as people have it. The images are empty files: nothing here looks into them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dataset.data_yaml import Described, describe, find_yaml, images, load
from dataset.issues import Findings
from errors import DatasetInvalid, Forbidden, ValidationFailed, VisionLoopError

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
        ("train: images/train\nval: images/val\n", "lacks 'names'"),
        ("train: images/train\nnames: car\n", "must be a list"),
        ("train: images/train\nnames: [[a], b]\n", "plain texts"),
        ("train: images/train\nnames: {car: 0}\n", "keys of 'names' must be class ids"),
        ("train: images/train\nnames: {0: a, 99999999: b}\n", "at most 10,000"),
        ("train: images/train\nnc: many\n", "nc must be the number"),
        ("train: images/train\nnc: 10000000000000\n", "nc must be the number"),
        ("train: images/train\nnames: [a]\nkpt_shape: 17\n", "kpt_shape must be"),
        ("train: images/train\nnames: [a]\nkpt_shape: [17, 4]\n", "2 or 3"),
        (
            "train: images/train\nnames: [a]\nkpt_shape: [2, 3]\nflip_idx: [0, 2]\n",
            "each index from 0 to 1 once",
        ),
        ("train: images/train\nnames: [a]\nchannels: 4\n", "only 3"),
        (
            "train: images/train\nval: images/val\nnames: [a]\ndownload: |\n  print(1)\n",
            "remove the key",
        ),
        (f"train: images/train\nval: {'b' * 5000}\nnames: [a]\n", "val 'bbb"),
        (f"train: images/train\nval: {'b/' * 2500}\nnames: [a]\n", "cannot be a path"),
        (
            f"path: {'/p' * 2500}\ntrain: t\nval: images/val\nnames: [a]\n",
            "train 't' does not exist",
        ),
        ('train: "\\0"\nval: images/val\nnames: [a]\n', "without null characters"),
        ('train: images/train\nval: images/val\nnames: ["\\0"]\n', "plain texts"),
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
        "./gone.jpg\r\n# no image\r\n".encode()
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: a\nval: a\ntrain: images/train\nnames: [a]\n", "twice, in lines 1 and 3"),
        ("train: images/train\nnames:\n  0: a\n  1: b\n  0: c\n", "twice, in lines 3 and 5"),
        ("{train: images/train, names: [a], names: [b]}\n", "'names' twice, in lines"),
        ("base: &b {train: images/train}\n<<: *b\nnames: [a]\n", "line 2: merge keys"),
        ("train: images/train\nval: images/val\nvalid: images/train\nnames: [a]\n", "and 'valid'"),
        ("Train: images/train\nnames: [a]\n", "must be 'train', in lower case"),
        ("train: images/train\n\tval: images/val\nnames: [a]\n", "line 2"),
        ("train: images/train\nval: images/gone\nnames: [a]\n", "val 'images/gone' does not exist"),
        ("train: /content/gone\nval: images/val\nnames: [a]\n", "/content/gone"),
        ("train: C:\\data\\gone\nval: images/val\nnames: [a]\n", "C:\\data\\gone"),
        ("train: [images/train, images/gone]\nnames: [a]\n", "images/gone"),
        ("train: images/train\nnames: {a: 0}\n", "must be class ids"),
        ("train: images/train\nnames: 'a, b'\n", "must be a list"),
        ("train: images/train\nnames: [[a], b]\n", "plain texts"),
        ("train: images/train\nnames: [数据]\n".encode("gbk"), "not UTF-8"),
        ("---\ntrain: images/train\n---\nnames: [a]\n", "not valid YAML"),
    ],
)  # fmt: skip
def test_what_would_be_read_otherwise_than_meant_is_refused(
    tree: Tree, text: str | bytes, said: str
) -> None:
    with pytest.raises((DatasetInvalid, Forbidden)) as caught:
        found(tree(text))
    assert said in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        b"train: images/train\nval: images/val\nvalid: images/val\nnames: !!python/tuple [a]\n",
        b"\xef\xbb\xbftrain: images/train\r\nval: images/val\r\nnames: [a]\r\n",
        "train: images/train\nval: images/val\nnames: [a]\n".encode("utf-16"),
        b"x: &x [images/train]\ntrain: *x\nval: images/val\nnames: [a]\nroboflow: {a: *x, b: *x}\n",
    ],
)
def test_other_ways_of_writing_the_same_are_read(tree: Tree, text: bytes) -> None:
    described, splits, kinds = found(tree(text))
    assert (described.names, splits, kinds) == (("a",), SPLITS, [])


def test_a_bomb_of_aliases_is_read_once_and_refused(tree: Tree) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    text = "\n".join([*levels, "train: images/train", "names: *a29", ""])
    with pytest.raises(DatasetInvalid, match="1,000,000 values"):
        found(tree(text))


@pytest.mark.parametrize(
    "text",
    [
        "train: " + "[" * 50_000,
        "train: " + "[" * 50_000 + "]" * 50_000,
        "train: " + "{a: " * 50_000,
        "train:\n" + "- " * 50_000,
        "? " * 50_000,
        "&a [" * 50_000,
        "!!seq [" * 50_000,
        "\n".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else 'x'}]" for i in range(200)),
    ],
    ids=["open", "closed", "mappings", "block", "keys", "anchors", "tags", "aliases"],
)
def test_deep_nesting_is_refused_in_this_process(tree: Tree, text: str) -> None:
    with pytest.raises(DatasetInvalid, match="more than 100 levels of nested values"):
        found(tree(text))


@pytest.mark.parametrize(
    "test", ["images/test", "../test/images", "/content/data/test", "D:\\data\\test", "test.txt"]
)
def test_a_test_split_that_is_not_there_is_told(tree: Tree, test: str) -> None:
    text = f"train: images/train\nval: images/val\ntest: '{test}'\nnames: [a]\n"
    file = tree(text)
    findings = Findings()
    root = file.parent.resolve()
    described = describe(root / file.name, [root.parent.parent, Path("/content")], findings)
    assert set(described.sources) == {"train", "val"}
    (finding,) = findings.result()
    assert (finding.kind, finding.fatal) == ("test", False)
    assert test in finding.message


LISTED = ["images/train/a.jpg", "images/train/b.png"]


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        (["./images/train/a.jpg", "./images/train/b.png"], []),
        (["/content/set/images/train/a.jpg", "/content/set/images/train/b.png"], ["list_path"]),
        (["/kaggle/input/x/train/a.jpg", "/kaggle/input/x/train/b.png"], None),
        ([r"C:\me\set\images\train\a.jpg", r"C:\me\set\images\train\b.png"], ["list_path"]),
        ([r"\\host\share\images\train\a.jpg", r"images\train\b.png"], ["list_path"]),
        (["data/set/images/train/a.jpg", "../set/images/train/b.png"], ["list_path"]),
        (['"images/train/a.jpg"', "'images/train/b.png'", "", "# end"], []),
        (["images/train/a.jpg", "images/train/b.png", "images/train/c.txt"], ["listed_line"]),
        (["images/train/a.jpg", "images/train/b.png", "images/train/gone.png"], ["missing_file"]),
    ],
)
def test_lists_of_other_machines_are_found_by_their_tails_and_told(
    tree: Tree, lines: list[str], kinds: list[str] | None
) -> None:
    file = tree("train: train.txt\nval: images/val\nnames: [a]\n")
    (file.parent / "train.txt").write_text("\n".join(lines))
    if kinds is None:
        with pytest.raises(DatasetInvalid, match=r"train.txt line 1: '/kaggle.*of another machine"):
            found(file)
        return
    _, splits, said = found(file)
    assert splits["train"] == LISTED
    assert said == kinds


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["images/train/a.jpg", r"D:\x\gone.jpg"], r"train.txt line 2: 'D:\x\gone.jpg'"),
        (["images/gone/a.jpg", "images/gone/b.jpg"], "the first is in line 1, 'images/gone/a.jpg'"),
        (["000001", "000002"], "first line that is not one is line 1, '000001'"),
        (["/a/images/train/a.jpg", "/b/images/train/a.jpg"], "lines 1 and 2"),
        (["images/train/\0.jpg"], "the first is in line 1"),
        ([f"images/{'a' * 4000}.jpg"], "the first is in line 1"),
    ],
)
def test_a_list_that_misses_names_its_first_line(tree: Tree, lines: list[str], said: str) -> None:
    file = tree("train: train.txt\nval: images/val\nnames: [a]\n")
    (file.parent / "train.txt").write_text("\n".join(lines))
    with pytest.raises(DatasetInvalid) as caught:
        found(file)
    assert said in caught.value.message
    assert len(caught.value.message) < 1000


def test_most_of_a_list_missing_is_fatal(tree: Tree) -> None:
    file = tree("train: train.txt\nval: images/val\nnames: [a]\n")
    (file.parent / "train.txt").write_text("images/train/a.jpg\ngone/a.jpg\ngone/b.jpg\n")
    findings = Findings()
    root = file.parent.resolve()
    images(describe(root / file.name, [root], findings), [root], findings)
    fatal = [finding.message for finding in findings.result() if finding.fatal]
    assert "2 of 3 listed images do not exist, the first in line 2, 'gone/a.jpg'" in fatal[0]
