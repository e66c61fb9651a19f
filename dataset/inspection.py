"""Reads and checks a dataset in any supported layout: data.yaml, class folders, or classes.txt."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dataset import class_folders, data_yaml, label_format_detection
from dataset.allowed_roots import client_path, confine, there
from dataset.dataset import Dataset, Splits
from dataset.image_files import match_labels
from dataset.issues import Findings, require_usable
from dataset.label_files import LabelFormat
from dataset.label_scan import judge, note_unmeasured, read_labels
from dataset.plain_folder import hint, plain
from dataset.splits import held_out_by_name
from errors import DatasetInvalid, DatasetNotFound
from models_store.description import Task


def check(path: Path | str, task: Task, roots: Sequence[Path], min_classes: int = 2) -> Dataset:
    """The dataset at a data.yaml or folder, if `task` can be trained on it.

    Reads the label files, not the images: about a second per 10,000 label files. Call it off the
    event loop.

    Args:
        path: A data.yaml or a folder.
        task: The task to train.
        roots: The allowed folders.
        min_classes: Smallest number of classes for task classify.

    Raises:
        DatasetInvalid: The dataset cannot be trained on; the message says why and where.
        DatasetNotFound: `path` does not exist.
        Forbidden: `path`, or a path in the dataset, is outside `roots`.
    """
    dataset = inspect(path, task, roots, min_classes)
    require_usable(dataset.findings)
    return dataset


def inspect(
    path: Path | str, task: Task | None, roots: Sequence[Path], min_classes: int = 1
) -> Dataset:
    """The dataset at a data.yaml or folder, with fatal findings listed in `Dataset.findings`.

    The arguments are those of `check`; without a task, the one that fits the labels is used.
    A single class is enough for an evaluation, and to add it to a model.

    Raises:
        DatasetInvalid: There is no dataset, or it cannot be read.
        DatasetNotFound, Forbidden: As for `check`.
    """
    real = confine(path, roots)
    if not there(real, str(path)):
        raise DatasetNotFound(
            f"'{str(path)[:200]}' does not exist on this server. Upload the data to /api/datasets, "
            "or correct the path."
        )
    with client_path(path):
        return _inspect(real, task, roots, min_classes)


def _inspect(real: Path, task: Task | None, roots: Sequence[Path], min_classes: int) -> Dataset:
    findings = Findings()
    if real.is_file() and real.suffix.lower() == ".zip":
        raise DatasetInvalid(f"'{real.name}' is a zip: upload it with POST /api/datasets.")
    if real.is_file() and real.suffix.lower() not in (".yaml", ".yml"):
        raise DatasetInvalid(
            f"'{real.name}' is neither a data.yaml nor a folder. Give the path of one of them."
        )
    file = real if real.is_file() else None
    if file is None and (task != "classify" or not class_folders.is_class_tree(real)):
        file = data_yaml.find_yaml(real)
        if file is not None:
            confine(file, roots)
            _note_other_descriptions(file, findings)
    if task == "classify" or (task is None and _is_classification(real, file)):
        return _classification_dataset(real, file, roots, findings, min_classes)
    return _labelled_dataset(real, file, task, roots, findings)


def _note_other_descriptions(file: Path, findings: Findings) -> None:
    others = [path.name for path in data_yaml.descriptions(file.parent) if path != file]
    if others:
        findings.note(
            "descriptions",
            f"{file.name} is used. The folder also contains {', '.join(others[:5])}; to use such a "
            "file, give its path instead of the folder's.",
        )


def _is_classification(root: Path, file: Path | None) -> bool:
    """Whether the images are sorted into class folders and have no label files."""
    if file is None and (root / "classes.txt").is_file():
        return False
    folder = root if file is None else file.parent
    if file is not None and any((folder / name).is_dir() for name in ("labels", "images")):
        return False
    if not class_folders.is_class_tree(folder):
        return False
    return file is None or not class_folders.has_labels_beside(folder)


def _classification_dataset(
    root: Path, file: Path | None, roots: Sequence[Path], findings: Findings, min_classes: int
) -> Dataset:
    unlabelled: tuple[Path, ...] = ()
    if file is None:
        names, found = class_folders.read(root, roots, findings, min_classes)
    else:
        root = file.parent
        described = data_yaml.describe(file, roots, findings)
        waiting = data_yaml.images(described, roots, findings, data_yaml.UNLABELLED)
        unlabelled = tuple(waiting.get(data_yaml.UNLABELLED, ()))
        described.sources.pop(data_yaml.UNLABELLED, None)
        if unlabelled and not described.sources:
            return _unlabelled(root, "classify", described.names, unlabelled, findings)
        names, found = class_folders.read_splits(described.sources, roots, findings, min_classes)
    if not found.get("val"):
        _note_held_out(findings, "val" in found)
        found["val"] = {}
        groups: dict[str, list[str]] = {}
        paths = {os.path.relpath(image, root): image for image in found["train"]}
        for name, image in paths.items():
            groups.setdefault(found["train"][image], []).append(name)
        for name in held_out_by_name(groups):
            found["val"][paths[name]] = found["train"].pop(paths[name])
    ids = {name: i for i, name in enumerate(names)}
    classes = {image: ids[name] for images in found.values() for image, name in images.items()}
    splits = {split: tuple(images) for split, images in found.items() if images}
    _require_val(splits)
    counts = {split: Counter(classes[image] for image in splits[split]) for split in splits}
    note_unmeasured(counts, names, findings)
    if len(names) == 1:
        findings.note(
            "one_class",
            f"There is one class, {names[0]}. A training in mode incremental can add it to a "
            "model; other trainings of a classifier need two classes.",
        )
    return Dataset(
        root,
        "classify",
        names,
        splits,
        classes=classes,
        counts=counts,
        unlabelled=unlabelled,
        inspection_findings=findings.result(),
    )


def _labelled_dataset(
    root: Path, file: Path | None, task: Task | None, roots: Sequence[Path], findings: Findings
) -> Dataset:
    if file is not None:
        root = file.parent
        described = data_yaml.describe(file, roots, findings)
        names, keypoints = described.names, described.keypoints
        found = data_yaml.images(described, roots, findings)
        unlabelled = tuple(found.pop(data_yaml.UNLABELLED, ()))
        if unlabelled and not found.get("train"):
            return _unlabelled(root, task or "detect", names, unlabelled, findings)
    else:
        unlabelled = ()
        names, keypoints, found = plain(root, task, roots, findings)
    if not found["train"]:
        raise DatasetInvalid("train has no images." + hint(root))
    if "val" not in found:
        _note_held_out(findings, False)
        paths = {os.path.relpath(image, root): image for image in found["train"]}
        val = {paths[name] for name in held_out_by_name({"": paths})}
        found["val"] = [image for image in found["train"] if image in val]
        found["train"] = [image for image in found["train"] if image not in val]
    splits = {split: tuple(images) for split, images in found.items() if images or split == "val"}
    _require_val(splits)
    every = list(dict.fromkeys(image for images in splits.values() for image in images))
    labels = match_labels(every, roots, findings)
    if not labels:
        raise DatasetInvalid(
            "No label files found, neither next to the images nor in a folder 'labels' where the "
            "images' path has 'images'." + hint(root)
        )
    if keypoints is None:
        statistics = label_format_detection.scan(labels.values())
        if task == "pose":
            raise DatasetInvalid(label_format_detection.without_keypoints(statistics))
        label_format_detection.require_stated(statistics, task, findings)
        task = task or statistics.task()
    task = task or "pose"
    label_format = LabelFormat(task, len(names), keypoints.shape if keypoints else None)
    counted = read_labels(splits, labels, label_format, root, findings)
    judge(counted, label_format, names, findings)
    return Dataset(
        root,
        task,
        names,
        splits,
        labels,
        keypoints=keypoints,
        rewritten=frozenset(counted.rewritten),
        counts=counted.counts,
        object_classes=counted.object_classes,
        digests=counted.digests,
        labelled=frozenset(counted.labelled),
        refused={image: tuple(lines) for image, lines in counted.refused.items()},
        unlabelled=unlabelled,
        inspection_findings=findings.result(),
    )


def _unlabelled(
    root: Path, task: Task, names: tuple[str, ...], images: tuple[Path, ...], findings: Findings
) -> Dataset:
    """A dataset of images without annotations, which cannot be trained on yet."""
    findings.note(
        "unlabelled",
        f"None of the {len(images)} images is annotated, so nothing can be trained yet. Annotate "
        "them in a tool and send its export to POST /api/datasets/{id}/annotations, or let a model "
        "pre-label them with POST /api/auto_annotate/batch.",
        fatal=True,
    )
    return Dataset(root, task, names, {}, unlabelled=images, inspection_findings=findings.result())


def _require_val(splits: Splits) -> None:
    if not splits.get("val"):
        raise DatasetInvalid(
            "The val split has no images, but training needs some to measure the model. Put 10 "
            "to 20 % of the images there, or remove the val split; then 20 % of train is held "
            "out."
        )


def _note_held_out(findings: Findings, empty: bool) -> None:
    findings.note(
        "held_out",
        f"There is no val split{' with images' if empty else ''}, so 20 % of train is held out "
        "as val, the same files every time.",
    )
