"""What a trainer needs of its data, whether they are one dataset or several merged."""

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
        """For `pose`."""

    @property
    def classes(self) -> Mapping[Path, int]:
        """Image → class id; empty but for `classify`."""

    @property
    def class_counts(self) -> dict[str, int]:
        """Class name → objects in train (images, for `classify`)."""

    @property
    def learned(self) -> Dataset:
        """The dataset that holds what is new to the model."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is known to be wrong with it, fatal findings first."""

    @property
    def fingerprint(self) -> str:
        """Identifies the content; scans the images."""

    def scan(self, progress: Progress = no_progress) -> ScanResult:
        """Read and decode every image, the first time; see `Dataset.scan`."""

    def materialise(self, folder: Path) -> Path:
        """Write the view that one job trains on; see `Dataset.materialise`."""
