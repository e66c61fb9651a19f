"""Reads a data.yaml from an untrusted source: class names, keypoints and image sources.

Nothing in it is executed. Every path is resolved inside the allowed roots, and training uses a
newly written yaml (`Dataset.materialise`), not this one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import yaml

from dataset.allowed_roots import LONGEST_NAME, LONGEST_PATH, REMEDY, is_inside, real_path
from dataset.image_files import SUFFIXES, foreign, walk
from dataset.image_lists import listed
from dataset.issues import Findings
from errors import DatasetInvalid, Forbidden, ValidationFailed
from formats.annotations import keypoint_labels
from models_store.description import class_names
from nesting import check_yaml_size

BIGGEST = 4 * 2**20  # maximum bytes of a data.yaml
UNLABELLED = "unlabelled"  # VisionLoop's own key: images without a split, not annotated yet
MOST_CLASSES = 10_000
USUAL = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
KEYS = {
    "train": ("train",),
    "val": ("val", "valid", "validation"),
    "test": ("test",),
    UNLABELLED: (UNLABELLED,),
}
_OTHER_NAMES = {"val": ("valid", "validation"), "valid": ("val",), "validation": ("val", "valid")}
_TEXTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # creates str, list and dict only


class Keypoints(NamedTuple):
    """The keypoints of a dataset.

    Attributes:
        shape: Number of keypoints; numbers per keypoint (2: x, y; 3: x, y, visibility).
        flip: Index of each keypoint after a horizontal flip (`flip_idx`).
        names: Keypoint names in order.
    """

    shape: tuple[int, int]
    flip: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the keypoints, or their indices as text if they have no names."""
        return keypoint_labels(self.names, self.shape[0])


class Described(NamedTuple):
    """The content of a data.yaml, with its paths resolved.

    Attributes:
        root: Folder of the data.yaml.
        names: Class names in order of id.
        keypoints: Keypoints, if kpt_shape is given.
        sources: Split, or `unlabelled` → folders, .txt lists or images.
    """

    root: Path
    names: tuple[str, ...]
    keypoints: Keypoints | None
    sources: dict[str, list[Path]]


def describe(file: Path, roots: Sequence[Path], findings: Findings) -> Described:
    """Read a data.yaml that is inside `roots`.

    Raises:
        DatasetInvalid: It cannot be used; the message names the key and the reason.
        Forbidden: A path in it leads out of `roots`.
    """
    content = load(file)
    if content.get("download"):
        raise DatasetInvalid(
            f"{file.name} has the key 'download': this server neither downloads data nor runs "
            "commands from a yaml. Put the data in place yourself and remove the key."
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
        hint = f" It has '{near[0][:40]}'; the key must be 'train', in lower case." if near else ""
        raise DatasetInvalid(f"{file.name}: the key 'train' is missing: a folder of images.{hint}")
    if (channels := content.get("channels")) not in (None, "", "3"):
        raise DatasetInvalid(
            f"{file.name}: channels is {_shown(channels)}; only 3 (RGB) is supported. Convert the "
            "images, or remove the key."
        )
    names = _names(file, content, findings) if "train" in sources or content.get("names") else ()
    return Described(root, names, _keypoints(file, content), sources)


def _key(file: Path, content: dict[str, Any], keys: Sequence[str]) -> str | None:
    """The key that is used of a split's alternative keys; None if none is used.

    Raises:
        DatasetInvalid: Two of them are used, with different values.
    """
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
    """The paths of a split's image sources.

    A missing test split is only reported: training does not need it, and many datasets are
    published without it.
    """
    found = []
    for value in values:
        try:
            found.append(_find(file, key, value, bases, roots, findings))
        except DatasetInvalid as error:
            if key != "test" or not isinstance(value, str):
                raise
            findings.note("test", f"{error.message} The dataset is used without a test split.")
    return found


def load(file: Path) -> dict[str, Any]:
    """The mapping in a yaml file. Every scalar is read as text, so that a class can be named `no`.

    Raises:
        DatasetInvalid: The file is not valid YAML or not a mapping.
    """
    try:
        if file.stat().st_size > BIGGEST:
            raise DatasetInvalid(
                f"{file.name} is over 4 MiB, the limit of a data.yaml. List images in a .txt file "
                "instead."
            )
        data = file.read_bytes()
        codec = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        content = _parsed(file, data.decode(codec))
    except OSError as error:
        raise DatasetInvalid(
            f"{file.name} cannot be read: {error.strerror}. Let the server's user read it."
        ) from None
    except UnicodeDecodeError:
        raise DatasetInvalid(f"{file.name} is not UTF-8 text. Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise DatasetInvalid(
            f"{file.name}{where} is not valid YAML: {reason}. Correct it there."
        ) from None
    except (RecursionError, ValueError, TypeError):
        raise DatasetInvalid(
            f"{file.name} is not valid YAML. Check its indentation, brackets and quotes."
        ) from None
    if not isinstance(content, dict):
        raise DatasetInvalid(f"{file.name} must have keys such as train, val and names.")
    return {key: value for key, value in content.items() if isinstance(key, str)}


def _parsed(file: Path, text: str) -> Any:
    """The parsed YAML as str, list and dict.

    Raises:
        DatasetInvalid: A key is repeated, a merge key is used, or it is nested too deeply.
    """
    try:
        check_yaml_size(text, _TEXTS, file.name)
    except ValidationFailed as error:
        raise DatasetInvalid(error.message) from None
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
    """Check for repeated keys: YAML would silently drop all but the last value.

    Raises:
        DatasetInvalid: A key is repeated, or a merge key is used.
    """
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))  # an alias is the same node and is visited once
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            _refuse_repeated(file, inner, seen)
        return
    lines: dict[str, int] = {}  # key → line
    for key, value in node.value:
        _refuse_repeated(file, value, seen)
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value == "<<":
            raise DatasetInvalid(
                f"{file.name} line {line}: merge keys (<<) are not supported. Write the keys out."
            )
        if key.value in lines:
            raise DatasetInvalid(
                f"{file.name} has the key '{key.value[:60]}' twice, in lines "
                f"{lines[key.value]} and {line}. Keep one of them."
            )
        lines[key.value] = line


def names_in(file: Path) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """The class names, keypoint names (or indices), and numbers per keypoint of a data.yaml.

    Raises:
        DatasetInvalid: It has no class names.
    """
    content = load(file)
    points = _keypoints(file, content)
    if points is None:
        return _names(file, content, Findings()), (), 3
    return _names(file, content, Findings()), points.labels, points.shape[1]


def find_yaml(folder: Path) -> Path | None:
    """The data.yaml of a folder: data.yaml, dataset.yaml, or the only other yaml that describes a
    dataset; None if there is none."""
    found = descriptions(folder)
    return found[0] if found and (found[0].name in USUAL or len(found) == 1) else None


def descriptions(folder: Path) -> list[Path]:
    """Every yaml in a folder that describes a dataset, those with the usual names first."""
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
    """Split → its images; only the split `only` if it is given."""
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
    """The folder that paths are relative to; the yaml's folder if `path` does not exist here."""
    path = content.get("path") or "."
    if not isinstance(path, str):
        raise DatasetInvalid("The key 'path' must be one folder.")
    if PureWindowsPath(path).drive:
        return root
    try:
        base = real_path(root / foreign(path))
    except ValidationFailed:  # treated like a folder that does not exist here
        return root
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
        try:
            real = real_path(candidate)
        except ValidationFailed:
            raise DatasetInvalid(
                f"{file.name}: {key} {value[:100]!r}{'…' if value[100:] else ''} cannot be a path: "
                f"at most {LONGEST_NAME} bytes per name and {LONGEST_PATH:,} in all, without null "
                "characters."
            ) from None
        if not is_inside(real, roots):
            forbidden |= meant
        elif real.exists():
            if i and candidate != bases[0] / value:
                shown = os.path.relpath(real, file.parent)
                findings.note("path", f"{file.name}: {key} '{value}' was found as '{shown}'.")
            return Path(os.path.normpath(candidate))
    if forbidden:
        raise Forbidden(
            f"{file.name}: {key} '{value}' is outside the folders that this server may read. "
            f"{REMEDY}"
        )
    raise DatasetInvalid(
        f"{file.name}: {key} '{value}' does not exist. Paths are relative to 'path', or to the "
        "yaml's folder."
    )


def _candidates(value: str, bases: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Candidate paths for a given path, best first, and whether each is the literal one."""
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
    if elsewhere or path.startswith("/"):  # a path of another machine: its last folders may match
        for start in range(len(parts)):
            if ".." not in parts[start:]:
                yield bases[-1].joinpath(*parts[start:]), False


def _names(file: Path, content: dict[str, Any], findings: Findings) -> tuple[str, ...]:
    names, count = content.get("names"), content.get("nc")
    nc = _id(count)
    if count not in (None, "") and (nc is None or nc > MOST_CLASSES):
        raise DatasetInvalid(
            f"{file.name}: nc must be the number of classes, at most 10,000; got {_shown(count)}."
        )
    if not names:
        if not nc:
            raise DatasetInvalid(f"{file.name} lacks 'names': the class names in order of id.")
        findings.note("names", f"{file.name} has no names: the classes are named by their ids.")
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
        raise DatasetInvalid(f"{file.name}: 'names' must be a list, or a mapping of id to name.")
    values = list(names.values()) if isinstance(names, dict) else names
    if any(not isinstance(value, str) or "\0" in value for value in values) or (
        length > MOST_CLASSES
    ):
        raise DatasetInvalid(f"{file.name}: 'names' must be plain texts, at most 10,000.")
    result = class_names(names, length)
    if length != len(values):
        findings.note("names", f"{file.name}: 'names' skips ids; those classes are named by id.")
    elif len({value.strip() for value in values}) < length:
        findings.note("names", f"{file.name}: 'names' has duplicates; their ids are appended.")
    if nc is not None and nc != length:
        findings.note(
            "nc", f"{file.name}: nc is {nc}, but there are {length} names; nc is ignored."
        )
    return result


def _keypoints(file: Path, content: dict[str, Any]) -> Keypoints | None:
    shape = content.get("kpt_shape")
    if not shape:
        return None
    numbers = _whole(shape)
    if numbers is None or len(numbers) != 2 or not 0 < numbers[0] <= 1000:
        raise DatasetInvalid(
            f"{file.name}: kpt_shape must be [number of keypoints (1 to 1000), 2 or 3]."
        )
    if numbers[1] not in (2, 3):
        raise DatasetInvalid(f"{file.name}: the second number of kpt_shape must be 2 or 3.")
    count = numbers[0]
    flip = content.get("flip_idx") or None
    if flip is not None:
        flip = _whole(flip)
        if flip is None or sorted(flip) != list(range(count)):
            raise DatasetInvalid(
                f"{file.name}: flip_idx must contain each index from 0 to {count - 1} once: the "
                "keypoint that each becomes in a horizontal flip."
            )
    return Keypoints(
        (count, numbers[1]), tuple(flip) if flip else None, _point_names(content, count)
    )


def _point_names(content: dict[str, Any], count: int) -> tuple[str, ...] | None:
    names = content.get("kpt_names")
    if isinstance(names, dict):  # Ultralytics maps class ids to names
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
    """The integer in a text of at most nine digits; None for anything else."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value.strip()) < 10:
        return int(value)
    return None


def _shown(value: object) -> str:
    """A value for a message; of a list or mapping only its type, because it can be very long."""
    return f"'{value[:60]}'" if isinstance(value, str) else f"a {type(value).__name__}"
