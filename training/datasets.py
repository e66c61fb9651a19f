"""Data sets, checked before anything trains on them.

`check` reads the description and every label; `Dataset.materialise` then also looks at every
picture and makes the folder that one job really trains on.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from errors import DatasetInvalid, DatasetNotFound
from models_store.description import Task
from training import class_folders, dataset_view, dataset_yaml, fingerprint, label_forms
from training.data_roots import client_path, confine, there
from training.dataset_yaml import Keypoints
from training.findings import Finding, Findings
from training.fingerprint import Picture
from training.image_files import match_labels
from training.label_tally import judge, read_labels, shown
from training.labels import Form
from training.plain_folder import hint, plain

SMALLEST = 10  # pixels a side; Ultralytics leaves smaller pictures out

Splits = Mapping[str, tuple[Path, ...]]


@dataclass(frozen=True)
class Looked:
    """What reading every picture added."""

    splits: Splits  # without the unreadable ones
    pictures: Mapping[Path, Picture]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set as found on disk.

    Attributes:
        root: The folder of its description.
        names: Class names in order of id.
        splits: `train`, `val` and perhaps `test` → images.
        labels: Image → its label file, where there is one. Empty for `classify`.
        classes: Image → class id. For `classify` only.
        rewritten: Labels whose text is not what is trained on.
        counts: Split → class id → objects (images for `classify`).
        digests: Label file → SHA-256.
        labelled: The label files that hold an object.
        unlabelled: Images of no split that nobody has annotated yet; nothing trains on them.
        refused: Image → the lines of its label file that are left out (0: the file as a whole).
        found: What was found without looking at the pictures.
    """

    root: Path
    task: Task
    names: tuple[str, ...]
    splits: Splits
    labels: Mapping[Path, Path] = field(default_factory=dict)
    classes: Mapping[Path, int] = field(default_factory=dict)
    keypoints: Keypoints | None = None
    rewritten: frozenset[Path] = frozenset()
    counts: Mapping[str, Counter[int]] = field(default_factory=dict)
    digests: Mapping[Path, str] = field(default_factory=dict)
    labelled: frozenset[Path] = frozenset()
    refused: Mapping[Path, tuple[int, ...]] = field(default_factory=dict)
    unlabelled: tuple[Path, ...] = ()
    found: tuple[Finding, ...] = ()

    @property
    def form(self) -> Form:
        return Form(self.task, len(self.names), self.keypoints.shape if self.keypoints else None)

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name → objects in train (pictures, for `classify`)."""
        counted = self.counts.get("train", Counter())
        return {name: counted[class_id] for class_id, name in enumerate(self.names)}

    @property
    def learned(self) -> Dataset:
        """What is new in it; all of it, where no old data is mixed in."""
        return self

    @cached_property
    def looked(self) -> Looked:
        """Reads and decodes every picture: seconds per thousand, the first time."""
        return _look(self, lambda *_: None)

    def look(self, seen: Callable[[int, int], None]) -> Looked:
        """The same, telling `seen` now and then how many of how many were looked at."""
        if "looked" not in self.__dict__:
            self.__dict__["looked"] = _look(self, seen)
        return self.looked

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content: names, pictures, labels, classes. Looks at the pictures."""
        pictures = self.looked.pictures
        parts = []
        for split, images in self.splits.items():
            for image in images:
                label = self.digests.get(self.labels.get(image, image), "")
                name = os.path.relpath(image, self.root)
                parts.append((f"{split}\0{name}", f"{pictures[image].digest} {label}"))
        parts += [
            (f"\0{os.path.relpath(image, self.root)}", pictures[image].digest)
            for image in self.unlabelled
        ]
        return fingerprint.fingerprint(parts, [self.names, self.keypoints])

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that is known so far, fatal ones first."""
        looked = self.looked.findings if "looked" in self.__dict__ else ()
        return tuple(sorted((*self.found, *looked), key=lambda finding: not finding.fatal))

    @property
    def problems(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(finding.message for finding in self.findings)

    def require_usable(self) -> None:
        """Raises DatasetInvalid with everything that stands in the way of training."""
        if fatal := [finding.message for finding in self.findings if finding.fatal]:
            raise DatasetInvalid(" ".join(fatal[:3]))

    def materialise(self, folder: Path) -> Path:
        """Make the private view that one job trains on: links to the pictures, and labels.

        Caches that trainers leave beside labels stay in it, so jobs on one data set never meet,
        and nothing is written into the user's folder. `folder` is made anew.

        Returns:
            The data.yaml, or the class root for `classify`.

        Raises:
            DatasetInvalid: The pictures are not enough.
        """
        self.looked  # noqa: B018  # may find more that is fatal
        self.require_usable()
        return dataset_view.write(self, folder)


def check(path: Path | str, task: Task, roots: Sequence[Path], fewest: int = 2) -> Dataset:
    """The data set at a data.yaml or folder, if `task` can be trained on it.

    `fewest` is how many classes a classifier's data must have.

    Reads the labels, not the pictures (about a second per 10,000 label files); call it off the
    event loop all the same.

    Raises:
        DatasetInvalid: It cannot be used; the message says what is wrong and where.
        DatasetNotFound: There is nothing at `path`.
        Forbidden: `path`, or something it leads to, is outside `roots`.
    """
    dataset = inspect(path, task, roots, fewest)
    dataset.require_usable()
    return dataset


def inspect(path: Path | str, task: Task | None, roots: Sequence[Path], fewest: int = 2) -> Dataset:
    """The same, with fatal findings listed rather than raised where there is more to tell.

    Without a task the one that fits the labels is taken.

    Raises:
        DatasetInvalid: There is no data set to speak of.
        DatasetNotFound, Forbidden: As for `check`.
    """
    real = confine(path, roots)
    if not there(real, str(path)):
        raise DatasetNotFound(f"There is nothing at '{str(path)[:200]}' on this server.")
    with client_path(path):
        return _inspect(real, task, roots, fewest)


def _inspect(real: Path, task: Task | None, roots: Sequence[Path], fewest: int) -> Dataset:
    findings = Findings()
    if real.is_file() and real.suffix.lower() == ".zip":
        raise DatasetInvalid(f"'{real.name}' is packed: upload it with POST /api/datasets.")
    if real.is_file() and real.suffix.lower() not in (".yaml", ".yml"):
        raise DatasetInvalid(f"'{real.name}' is neither a data.yaml nor a folder.")
    file = real if real.is_file() else None
    if file is None and (task != "classify" or not class_folders.is_class_tree(real)):
        file = dataset_yaml.find_yaml(real)
        if file is not None:
            confine(file, roots)
            _say_others(file, findings)
    if task == "classify" or (task is None and _is_classified(real, file)):
        return _classified(real, file, roots, findings, fewest)
    return _labelled(real, file, task, roots, findings)


def _say_others(file: Path, findings: Findings) -> None:
    others = [path.name for path in dataset_yaml.descriptions(file.parent) if path != file]
    if others:
        findings.note(
            "descriptions",
            f"{file.name} was taken; {', '.join(others[:5])} beside it describes a data set, too. "
            "Give the file's path instead of the folder's to use another.",
        )


def _is_classified(root: Path, file: Path | None) -> bool:
    if file is None and (root / "classes.txt").is_file():
        return False
    folder = root if file is None else file.parent
    if file is not None and any((folder / name).is_dir() for name in ("labels", "images")):
        return False
    if not class_folders.is_class_tree(folder):
        return False
    return file is None or not class_folders.has_labels_beside(folder)


def _classified(
    root: Path, file: Path | None, roots: Sequence[Path], findings: Findings, fewest: int
) -> Dataset:
    unlabelled: tuple[Path, ...] = ()
    if file is None:
        names, found = class_folders.read(root, roots, findings, fewest)
    else:
        root = file.parent
        described = dataset_yaml.describe(file, roots, findings)
        waiting = dataset_yaml.images(described, roots, findings, dataset_yaml.UNLABELLED)
        unlabelled = tuple(waiting.get(dataset_yaml.UNLABELLED, ()))
        described.sources.pop(dataset_yaml.UNLABELLED, None)
        if unlabelled and not described.sources:
            return _unlabelled(root, "classify", (), unlabelled, findings)
        names, found = class_folders.read_splits(described.sources, roots, findings, fewest)
    if not found.get("val"):
        _say_held_out(findings, "val" in found)
        found["val"] = {}
        groups: dict[str, list[str]] = {}
        paths = {os.path.relpath(image, root): image for image in found["train"]}
        for name, image in paths.items():
            groups.setdefault(found["train"][image], []).append(name)
        for name in class_folders.hold_out(groups):
            found["val"][paths[name]] = found["train"].pop(paths[name])
    ids = {name: i for i, name in enumerate(names)}
    classes = {image: ids[name] for images in found.values() for image, name in images.items()}
    splits = {split: tuple(images) for split, images in found.items() if images}
    _require_val(splits)
    counts = {split: Counter(classes[image] for image in splits[split]) for split in splits}
    return Dataset(
        root,
        "classify",
        names,
        splits,
        classes=classes,
        counts=counts,
        unlabelled=unlabelled,
        found=findings.result(),
    )


def _labelled(
    root: Path, file: Path | None, task: Task | None, roots: Sequence[Path], findings: Findings
) -> Dataset:
    if file is not None:
        root = file.parent
        described = dataset_yaml.describe(file, roots, findings)
        names, keypoints = described.names, described.keypoints
        found = dataset_yaml.images(described, roots, findings)
        unlabelled = tuple(found.pop(dataset_yaml.UNLABELLED, ()))
        if unlabelled and not found.get("train"):
            return _unlabelled(root, task or "detect", names, unlabelled, findings)
    else:
        unlabelled = ()
        names, keypoints, found = plain(root, task, roots, findings)
    if not found["train"]:
        raise DatasetInvalid("train has no images." + hint(root))
    if "val" not in found:
        _say_held_out(findings, False)
        paths = {os.path.relpath(image, root): image for image in found["train"]}
        val = {paths[name] for name in class_folders.hold_out({"": paths})}
        found["val"] = [image for image in found["train"] if image in val]
        found["train"] = [image for image in found["train"] if image not in val]
    splits = {split: tuple(images) for split, images in found.items() if images or split == "val"}
    _require_val(splits)
    every = list(dict.fromkeys(image for images in splits.values() for image in images))
    labels = match_labels(every, roots, findings)
    if not labels:
        raise DatasetInvalid(
            "No label files: none is beside the images, nor in a folder 'labels' in place of "
            "'images'." + hint(root)
        )
    if keypoints is None:
        forms = label_forms.look(labels.values())
        if task == "pose":
            raise DatasetInvalid(label_forms.without_keypoints(forms))
        label_forms.require_stated(forms, task, findings)
        task = task or forms.task()
    task = task or "pose"
    form = Form(task, len(names), keypoints.shape if keypoints else None)
    tally = read_labels(splits, labels, form, root, findings)
    judge(tally, form, names, findings)
    return Dataset(
        root,
        task,
        names,
        splits,
        labels,
        keypoints=keypoints,
        rewritten=frozenset(tally.rewritten),
        counts=tally.counts,
        digests=tally.digests,
        labelled=frozenset(tally.labelled),
        refused={image: tuple(lines) for image, lines in tally.refused.items()},
        unlabelled=unlabelled,
        found=findings.result(),
    )


def _unlabelled(
    root: Path, task: Task, names: tuple[str, ...], images: tuple[Path, ...], findings: Findings
) -> Dataset:
    """Images alone: a data set to annotate, which nothing trains on yet."""
    findings.note(
        "unlabelled",
        f"None of the {len(images)} images is annotated, so nothing can be trained yet. Next: "
        "annotate them in a tool and send its export to POST /api/datasets/{id}/annotations, or "
        "have a model begin with POST /api/auto_annotate/batch.",
        fatal=True,
    )
    return Dataset(root, task, names, {}, unlabelled=images, found=findings.result())


def _look(dataset: Dataset, seen: Callable[[int, int], None]) -> Looked:
    findings = Findings()
    placed = [image for images in dataset.splits.values() for image in images]
    every = list(dict.fromkeys((*placed, *dataset.unlabelled)))
    pictures = fingerprint.look(every, dataset.root, seen=seen)
    usable: dict[str, tuple[Path, ...]] = {}
    trained: dict[str, Path] = {}
    for split, images in dataset.splits.items():
        kept = []
        for image in images:
            picture, where = pictures[image], shown(image, dataset.root)
            if picture.problem:
                findings.add("corrupt_image", f"{where}: {picture.problem}")
                continue
            if min(picture.width, picture.height) < SMALLEST:
                findings.add("small_image", f"{where}: {picture.width} × {picture.height}")
                continue
            kept.append(image)
            twin = trained.get(picture.digest)
            if split == "train":
                if twin is not None:
                    findings.add("duplicate_train", where)
                trained.setdefault(picture.digest, image)
            elif twin is not None:
                findings.add("duplicate_split", f"{where} is {shown(twin, dataset.root)}")
        usable[split] = tuple(kept)
        if not kept and split != "test":
            findings.note("empty", f"No image of {split} can be read.", fatal=True)
    for image in dataset.unlabelled:
        if problem := pictures[image].problem:
            findings.add("corrupt_image", f"{shown(image, dataset.root)}: {problem}")
    if dataset.classes and usable["train"]:
        learned = {dataset.classes[image] for image in usable["train"]}
        lost = {dataset.classes[image] for image in dataset.splits["train"]} - learned
        if names := ", ".join(dataset.names[i] for i in sorted(lost)[:5]):
            message = f"Classes without a readable image to train on: {names}."
            findings.note("untrained_class", message, fatal=True)
    if findings.counts["duplicate_split"] > sum(map(len, usable.values())) / 10:
        findings.note("leak", "Much of val or test is in train too: its metrics will flatter.")
    return Looked(usable, pictures, findings.result())


def _require_val(splits: Splits) -> None:
    if not splits.get("val"):
        raise DatasetInvalid(
            "val has no images: training needs some to measure itself on. Put a tenth to a fifth "
            "of the images there, or leave the key out to have a fifth of train held out."
        )


def _say_held_out(findings: Findings, empty: bool) -> None:
    findings.note(
        "held_out",
        f"There is no val split{' with images' if empty else ''}: a fifth of train is held out "
        "for it, always the same files.",
    )
