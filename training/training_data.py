"""The protocol of training data: one dataset, or several merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dataset.data_yaml import Keypoints
from dataset.dataset import Dataset, ScanResult
from dataset.image_scan import Progress, no_progress
from dataset.issues import Finding
from models_store.description import Task


class TrainingData(Protocol):
    """Images with annotations that a job trains and validates on.

    `dataset.dataset.Dataset` and `training.replay.merged_dataset.MergedDataset` satisfy it.
    """

    @property
    def task(self) -> Task: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in order of id."""

    @property
    def keypoints(self) -> Keypoints | None:
        """Number, flip order and names of the keypoints; None except for `pose`."""

    @property
    def classes(self) -> Mapping[Path, int]:
        """Image → class id; empty except for `classify`."""

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name → number of objects in train (of images for `classify`)."""

    @property
    def learned(self) -> Dataset:
        """The dataset with the new data to learn, without images replayed from older datasets."""

    @property
    def unlabelled_classes(self) -> tuple[list[int], list[int]]:
        """The ids of the classes that are not labelled in new images, and in replayed images.

        A dataset whose class list has a class is assumed to label all objects of this class.
        """

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings so far, fatal ones first."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content. Scans the images."""

    def scan(self, progress: Progress = no_progress) -> ScanResult:
        """Read and decode every image, the first time; see `Dataset.scan`."""

    def materialise(self, folder: Path) -> Path:
        """Write the view that one job trains on; see `Dataset.materialise`."""
