"""data.yaml as people have it, read without trusting it.

Nothing in it runs, nothing it names is believed: every path is resolved inside the allowed
roots, and training later uses a yaml written from what was found (`Dataset.materialise`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import yaml

from dataset.allowed_roots import REMEDY, is_inside, real_path
from dataset.image_files import SUFFIXES, foreign, walk
from dataset.image_lists import listed
from dataset.issues import Findings
from errors import DatasetInvalid, Forbidden
from formats.annotations import keypoint_labels
from models_store.description import class_names

BIGGEST = 4 * 2**20  # bytes of a data.yaml
UNLABELLED = "unlabelled"  # our own key: images that nobody has annotated yet, of no split
MOST_CLASSES = 10_000
USUAL = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
KEYS = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
    UNLABELLED: (UNLABELLED,),
}
_OTHER_NAMES = {"val": ("valid", "validation"), "valid": ("val",), "validation": ("val", "valid")}
_TEXTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # makes texts, lists, dicts, no more


class Keypoints(NamedTuple):
    """How many keypoints of how many numbers; which one each becomes in a mirror; names."""

    shape: tuple[int, int]
    flip: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the keypoints, or their numbers where they have none."""
        return keypoint_labels(self.names, self.shape[0])


class Described(NamedTuple):
    """What a data.yaml says, its paths found. `sources` are folders, lists or images, of the
    splits and of `unlabelled`, whose images wait for their annotations."""

    root: Path
    names: tuple[str, ...]
    keypoints: Keypoints | None
    sources: dict[str, list[Path]]


def describe(file: Path, roots: Sequence[Path], findings: Findings) -> Described:
    """Read a data.yaml that lies inside `roots`.

    Raises:
        DatasetInvalid: It cannot be used; the message says which key and why.
        Forbidden: A path in it leads out of `roots`.
    """
    content = load(file)
    if content.get("download"):
        raise DatasetInvalid(
            f"{file.name} has the key 'download': this server never fetches data, nor runs what "
            "a yaml says. Put the data in place yourself and remove the key."
        )
    root = file.parent
    base = _base(content, root, roots)
    sources = {}
    for split, keys in KEYS.items():
        key = _key(file, content, keys)
        if key is not None:
            values = content[key] if isinstance(content[key], list) else [content[key]]
            found = _sources(file, key, values, [base, root], roots, findings)
            if found or split != "test":
                sources[split] = found
    if "train" not in sources and list(sources) != [UNLABELLED]:
        near = [key for key in content if key.strip().lower() in ("train", "training")]
        hint = f" It has '{near[0][:40]}': keys are written in lower case." if near else ""
        raise DatasetInvalid(f"{file.name}: the key 'train' is missing: a folder of images.{hint}")
    if (channels := content.get("channels")) not in (None, "", "3"):
        raise DatasetInvalid(f"{file.name}: channels is {_shown(channels)}; only 3 (RGB) work.")
    names = _names(file, content, findings) if "train" in sources or content.get("names") else ()
    return Described(root, names, _keypoints(file, content), sources)


def _key(file: Path, content: dict[str, Any], keys: Sequence[str]) -> str | None:
    """Which of the names of a split is used. Raises DatasetInvalid: two that differ."""
    given = [key for key in keys if content.get(key)]
    if len({repr(content[key]) for key in given}) > 1:
        raise DatasetInvalid(
            f"{file.name} has '{given[0]}' and '{given[1]}', which mean the same split. Keep one."
        )
    return given[0] if given else None


def _sources(
    file: Path,
    key: str,
    values: Sequence[object],
    bases: Sequence[Path],
    roots: Sequence[Path],
    findings: Findings,
) -> list[Path]:
    """Where the images of a split lie. A test split that is not there is only told: nothing that
    trains needs it, and its labels are often kept back."""
    found = []
    for value in values:
        try:
            found.append(_find(file, key, value, bases, roots, findings))
        except DatasetInvalid as error:
            if key != "test" or not isinstance(value, str):
                raise
            findings.note("test", f"{error.message} The dataset has no test split for now.")
    return found


def load(file: Path) -> dict[str, Any]:
    """The mapping in a yaml file; every scalar is text, so that a class may be called `no`.

    Raises:
        DatasetInvalid: It is none.
    """
    try:
        if file.stat().st_size > BIGGEST:
            raise DatasetInvalid(f"{file.name} is over 4 MiB: that is no description.")
        data = file.read_bytes()
        codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        content = _parsed(file, data.decode(codec))
    except OSError as error:
        raise DatasetInvalid(f"{file.name} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DatasetInvalid(f"{file.name} is not UTF-8 text. Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise DatasetInvalid(f"{file.name}{where} is not valid YAML: {reason}.") from None
    except (RecursionError, ValueError, TypeError):
        raise DatasetInvalid(f"{file.name} is not valid YAML.") from None
    if not isinstance(content, dict):
        raise DatasetInvalid(f"{file.name} must have keys such as train, val and names.")
    return {key: value for key, value in content.items() if isinstance(key, str)}


def _parsed(file: Path, text: str) -> Any:
    """Texts, lists and dicts. Raises DatasetInvalid: a key stands twice, or is merged."""
    loader = _TEXTS(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeated(file, node, set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_repeated(file: Path, node: yaml.Node, seen: set[int]) -> None:
    """YAML keeps the last of two equal keys, and drops what the first said."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))  # an alias is the same node: it is looked into once
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            _refuse_repeated(file, inner, seen)
        return
    said: dict[str, int] = {}  # key → line
    for key, value in node.value:
        _refuse_repeated(file, value, seen)
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value == "<<":
            raise DatasetInvalid(
                f"{file.name} line {line}: merge keys (<<) are not read. Write the keys out."
            )
        if key.value in said:
            raise DatasetInvalid(
                f"{file.name}: the key '{key.value[:60]}' stands twice, in lines "
                f"{said[key.value]} and {line}. Keep the one that is meant."
            )
        said[key.value] = line


def names_in(file: Path) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """The class names of a description, its keypoints' names or numbers, and how many numbers
    each of these has in label files.

    Raises:
        DatasetInvalid: It has none.
    """
    content = load(file)
    points = _keypoints(file, content)
    if points is None:
        return _names(file, content, Findings()), (), 3
    return _names(file, content, Findings()), points.labels, points.shape[1]


def find_yaml(folder: Path) -> Path | None:
    """The description in a folder: data.yaml, dataset.yaml, or the only yaml with names."""
    found = descriptions(folder)
    return found[0] if found and (found[0].name in USUAL or len(found) == 1) else None


def descriptions(folder: Path) -> list[Path]:
    """Every description in a folder, those of the usual names first."""
    usual = [folder / name for name in USUAL if (folder / name).is_file()]
    found = [path for path in sorted(folder.glob("*.[yY]*[mM][lL]")) if path.is_file()]
    for path in found[:20]:
        if path in usual:
            continue
        try:
            content = load(path)
        except DatasetInvalid:
            continue
        if "train" in content and ("names" in content or "nc" in content):
            usual.append(path)
    return usual


def images(
    described: Described, roots: Sequence[Path], findings: Findings, only: str = ""
) -> dict[str, list[Path]]:
    """The images of each split, or of one of them."""
    splits: dict[str, list[Path]] = {}
    for split, sources in described.sources.items():
        if only not in ("", split):
            continue
        found: dict[Path, None] = {}
        for source in sources:
            found.update(dict.fromkeys(_images(source, described.root, roots, findings)))
        splits[split] = list(found)
    return splits


def _images(source: Path, base: Path, roots: Sequence[Path], findings: Findings) -> Iterator[Path]:
    if source.is_dir():
        return walk(source, roots, findings)
    if source.suffix.lower() in SUFFIXES:
        return iter([source])
    return iter(listed(source, base, roots, findings))


def _base(content: dict[str, Any], root: Path, roots: Sequence[Path]) -> Path:
    """The folder that paths count from; its own folder where `path` means another machine's."""
    path = content.get("path") or "."
    if not isinstance(path, str):
        raise DatasetInvalid("The key 'path' must be one folder.")
    if PureWindowsPath(path).drive:
        return root
    base = real_path(root / foreign(path))
    return base if is_inside(base, roots) and base.is_dir() else root


def _find(
    file: Path,
    key: str,
    value: object,
    bases: Sequence[Path],
    roots: Sequence[Path],
    findings: Findings,
) -> Path:
    if not isinstance(value, str):
        raise DatasetInvalid(f"{file.name}: '{key}' must be a folder, a .txt list, or a list.")
    forbidden = False
    for i, (candidate, meant) in enumerate(_candidates(value, bases)):
        real = real_path(candidate)
        if not is_inside(real, roots):
            forbidden |= meant
        elif real.exists():
            if i and candidate != bases[0] / value:
                shown = os.path.relpath(real, file.parent)
                findings.note("path", f"{file.name}: {key} '{value}' was found as '{shown}'.")
            return Path(os.path.normpath(candidate))
    if forbidden:
        raise Forbidden(
            f"{file.name}: {key} '{value}' is outside the folders this server may read. {REMEDY}"
        )
    raise DatasetInvalid(
        f"{file.name}: {key} '{value}' does not exist. Paths count from 'path', else from the "
        "yaml's own folder."
    )


def _candidates(value: str, bases: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Where a path may lie, best first, and whether that is what it says literally."""
    path = foreign(value)
    elsewhere = bool(PureWindowsPath(value).drive)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for base in dict.fromkeys(bases):
        if not elsewhere:
            yield base / path, True
        while parts and parts[0] == "..":  # Roboflow writes ../train/images
            parts = parts[1:]
            yield base.joinpath(*parts), False
        if parts and parts[-1] in _OTHER_NAMES:
            for name in _OTHER_NAMES[parts[-1]]:
                yield base.joinpath(*parts[:-1], name), False
        if len(parts) > 1 and parts[0] in _OTHER_NAMES:  # val/images for valid/images
            for name in _OTHER_NAMES[parts[0]]:
                yield base.joinpath(name, *parts[1:]), False
    if elsewhere or path.startswith("/"):  # made on another machine: its last folders may fit
        for start in range(len(parts)):
            if ".." not in parts[start:]:
                yield bases[-1].joinpath(*parts[start:]), False


def _names(file: Path, content: dict[str, Any], findings: Findings) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    nc = _id(count)
    if count not in (None, "") and (nc is None or nc > MOST_CLASSES):
        raise DatasetInvalid(f"{file.name}: nc must be a number of classes; got {_shown(count)}.")
    if not names:
        if not nc:
            raise DatasetInvalid(f"{file.name}: 'names' is missing: the classes in order of id.")
        findings.note("names", f"{file.name} has no names: the classes get numbers.")
        return class_names([], nc)
    if isinstance(names, dict):
        ids = [number for key in names if (number := _id(key)) is not None]
        if len(set(ids)) < len(names):
            raise DatasetInvalid(f"{file.name}: the keys of 'names' must be class ids: 0, 1, 2 …")
        length = max(ids) + 1
        names = dict(zip(map(str, ids), names.values(), strict=True))
    elif isinstance(names, list):
        length = len(names)
    else:
        raise DatasetInvalid(f"{file.name}: 'names' must be a list, or ids with names.")
    values = list(names.values()) if isinstance(names, dict) else names
    if not all(isinstance(value, str) for value in values) or length > MOST_CLASSES:
        raise DatasetInvalid(f"{file.name}: 'names' must be at most 10,000 plain texts.")
    result = class_names(names, length)
    if length != len(values):
        findings.note("names", f"{file.name}: 'names' has gaps; the missing ones are numbered.")
    elif len({value.strip() for value in values}) < length:
        findings.note("names", f"{file.name}: 'names' repeats some; they are told apart by id.")
    if nc is not None and nc != length:
        findings.note("nc", f"{file.name}: nc is {nc}, but there are {length} names; names count.")
    return result


def _keypoints(file: Path, content: dict[str, Any]) -> Keypoints | None:
    shape = content.get("kpt_shape")
    if not shape:
        return None
    numbers = _whole(shape)
    if numbers is None or len(numbers) != 2 or not 0 < numbers[0] <= 1000:
        raise DatasetInvalid(f"{file.name}: kpt_shape must be [how many, 2 or 3].")
    if numbers[1] not in (2, 3):
        raise DatasetInvalid(f"{file.name}: the second number of kpt_shape must be 2 or 3.")
    count = numbers[0]
    flip = content.get("flip_idx") or None
    if flip is not None:
        flip = _whole(flip)
        if flip is None or sorted(flip) != list(range(count)):
            raise DatasetInvalid(
                f"{file.name}: flip_idx must hold each number from 0 to {count - 1} once: which "
                "keypoint each becomes in a mirror."
            )
    return Keypoints(
        (count, numbers[1]), tuple(flip) if flip else None, _point_names(content, count)
    )


def _point_names(content: dict[str, Any], count: int) -> tuple[str, ...] | None:
    names = content.get("kpt_names")
    if isinstance(names, dict):  # Ultralytics has them by class id
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == count:
        texts = tuple(name[:200] for name in names if isinstance(name, str))
        return texts if len(texts) == count else None
    return None


def _whole(values: object) -> list[int] | None:
    if not isinstance(values, list) or len(values) > 1000:
        return None
    numbers = [number for value in values if (number := _id(value)) is not None]
    return numbers if len(numbers) == len(values) else None


def _id(value: object) -> int | None:
    """The number in a text of at most nine digits."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) < 10:
        return int(value)
    return None


def _shown(value: object) -> str:
    """A value for a message; nested ones are not spelled out, they can be enormous."""
    return f"'{value[:60]}'" if isinstance(value, str) else f"a {type(value).__name__}"
