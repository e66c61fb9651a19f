"""Recovers old classes that a training has lost, with weights between the old and the new model.

The trained network is measured on the val images of the old data, and so is the old network. If an
old class has dropped by more than the gate allows, further candidates are measured:

- The weights of both networks are averaged (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
  Rows of new classes, which the old network lacks, stay as trained.
- A classifier's logits of new classes are lowered by one value for all of them, as in the bias
  correction of Wu et al. 2019 (BiC, arXiv 1905.13260).

The candidate with the highest mean over old and new classes is published; this is how the published
epoch is chosen, too. The trained network is kept unless old classes gain, and unless a classifier's
candidate is better by more than chance: a val split of a few images per class would choose lower
logits for nothing.
docs/explanation/learning-benchmarks.md has the figures.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inference.device import device
from models_store.description import ModelDescription, Preprocessing
from models_store.weights import save_model
from settings import get_settings
from training.incremental.epoch_criteria import NEW, OLD, EpochCriteria
from training.incremental.folder_report import folder_report
from training.incremental.forgetting import METRICS, TOLERANCE, measured_rows
from training.replay.merged_dataset import DatasetPart, MergedDataset
from training.start_weights import Start, last_layer
from training.yolo.feature_extractor import FeatureExtractor
from training.yolo.run import TrainerExtension

if TYPE_CHECKING:
    from jobs.handle import JobHandle

SHARES = (0.75, 0.5, 0.25)  # of the trained weights in an average
OFFSETS = (0.0, -0.5, -1.0, -1.5, -2.0)  # added to a classifier's logits of new classes
SHOWN = 5  # class names in a sentence

CHANCE = 2.0  # standard errors by which a classifier has to be better

Scores = Mapping[int, float]  # class id → accuracy or AP50-95
Hits = Mapping[int, Tensor]  # class id → whether each of its val images is classified rightly
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Candidate:
    """A network that may be published.

    Attributes:
        share: Share of the trained weights in the average with the old ones.
        offset: Added to the logits of new classes.
        old: Metric of each old class on old val images.
        new: Metric of each new class on new val images.
        hits: Of a classifier: the hits on old, and on new val images.
    """

    share: float
    offset: float
    old: Scores
    new: Scores
    hits: tuple[Hits, ...] = ()

    @property
    def mean(self) -> float:
        """The mean over old and new classes, with the same weight."""
        return (fmean(self.old.values()) + fmean(self.new.values())) / 2

    @property
    def rank(self) -> tuple[float, float, float]:
        """The mean; of equal ones, the least changed is the best."""
        return round(self.mean, 9), self.share, self.offset

    def recovers(self, trained: Candidate) -> bool:
        """Whether old classes have at least the mean that they have in the trained network, and the
        mean over old and new classes is higher: in a classifier by more than `CHANCE` standard
        errors.
        """
        keeps = fmean(self.old.values()) >= fmean(trained.old.values())
        return keeps and self.mean - trained.mean > CHANCE * self._error(trained) + 1e-9

    def _error(self, other: Candidate) -> float:
        """The standard error of the difference of two means, from the images of each class."""
        variance = 0.0
        for ours, theirs in zip(self.hits, other.hits, strict=True):
            for cls, hits in ours.items():
                changes = hits.float() - theirs[cls].float()
                # one image has no variance: as of a change that is as likely as its opposite
                one = changes.var() if len(changes) > 1 else changes.square()
                variance += (0.5 / len(ours)) ** 2 * float(one) / len(changes)
        return math.sqrt(variance)


@dataclass
class OldClassRecovery(TrainerExtension):
    """Trainer extension: changes the weights to publish if an old class was lost.

    Attributes:
        old: The old network.
        old_folder: Its model folder.
        dataset: New and old data.
        criteria: The classes to measure on each.
        imgsz: Input size of the trained network, pixels.
        how: The preprocessing of a MobileNet; None: that of YOLO.
        allowed_drop: The largest drop of an old class that is no loss.
        sentences: What was done, for the report; empty: nothing was lost.
        means: The mean metrics of old and new classes on val, if the weights were changed.
    """

    old: Start
    old_folder: Path
    dataset: MergedDataset
    criteria: EpochCriteria
    imgsz: int
    how: Preprocessing | None
    allowed_drop: float
    job: JobHandle
    sentences: tuple[str, ...] = ()
    means: dict[str, float] = field(default_factory=dict)

    def model_saved(self, run: Any, model: nn.Module, folder: Path) -> None:
        """Measure the network that was written to `folder`, and replace it if that helps."""
        description = ModelDescription.load(folder)
        classify = self.dataset.task == "classify"
        measure = self._classifier if classify else self._detector
        before = self._old_classifier() if classify else self._evaluated(self.old_folder, True)
        trained = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        found = list(measure(model, description, 1.0))
        first = found[0]
        lost = self._lost(before, first)
        if not lost or not first.new:
            return
        known = self.old.model.state_dict() if self.old.model is not None else {}
        self.job.log(
            f"{_shown([self.dataset.names[cls] for cls in lost])} lost more than the gate allows "
            f"({self.allowed_drop:g} of {METRICS[self.dataset.task]}) on the old val images. "
            "Averages of the old and the new weights are measured."
        )
        for share in SHARES if differ(trained, known) else ():
            model.load_state_dict(averaged(trained, known, share))
            found += measure(model, description, share)
        better = [candidate for candidate in found if candidate.recovers(first)]
        best = max(better, key=lambda candidate: candidate.rank, default=first)
        model.load_state_dict(averaged(trained, known, best.share))
        if best.offset:
            linear = last_layer(model)
            with torch.no_grad():
                linear.bias[len(self.old.names) :] += best.offset
        if best is not first:
            save_model(folder, model.cpu(), description)
            self.means = {OLD: fmean(best.old.values()), NEW: fmean(best.new.values())}
        self.sentences = (self._sentence(lost, self._lost(before, best), first, best),)
        self.job.log(self.sentences[0])

    def _lost(self, before: Scores, after: Candidate) -> list[int]:
        """The old classes that dropped by more than is allowed, worst first."""
        drops = {cls: before[cls] - after.old[cls] for cls in before if cls in after.old}
        limit = self.allowed_drop + TOLERANCE
        return sorted((cls for cls in drops if drops[cls] > limit), key=lambda cls: -drops[cls])

    def _sentence(
        self, lost: Sequence[int], still: Sequence[int], first: Candidate, best: Candidate
    ) -> str:
        names = _shown([self.dataset.names[cls] for cls in lost])
        count = f"{len(lost)} old {'class' if len(lost) == 1 else 'classes'}"
        text = f"The training lost more than the gate allows of {count}: {names}. "
        if best is first:
            return text + (
                "No average of the old and the new weights has a higher mean over old and new "
                "classes on the val images by more than chance, so the trained weights are "
                "published."
            )
        done = []
        if best.share < 1:
            done.append(
                f"the weights are {best.share:.0%} the trained ones and {1 - best.share:.0%} those "
                "of the old model"
            )
        if best.offset:
            done.append(f"the logits of new classes are lowered by {-best.offset:g}")
        means = [
            f"{name} classes from {fmean(a.values()):.3f} to {fmean(b.values()):.3f}"
            for name, a, b in (("old", first.old, best.old), ("new", first.new, best.new))
        ]
        left = f"{len(still)} of them are still lost" if still else "none of them is lost any more"
        return text + (
            f"So {' and '.join(done)}. On the val images, this changes {' and '.join(means)} (mean "
            f"{METRICS[self.dataset.task]}); {left}."
        )

    def _classifier(
        self, model: nn.Module, _: ModelDescription, share: float
    ) -> Iterator[Candidate]:
        """The candidates with the weights of a classifier, for each offset of the new logits."""
        known = len(self.old.names)
        outputs = [
            self._logits(model, part, self.how, self.imgsz)
            for part in (self._old, self.dataset.new)
        ]
        for offset in OFFSETS if len(self.dataset.names) > known else OFFSETS[:1]:
            hits = []
            for (logits, truth), classes in zip(
                outputs, (self.criteria.old, self.criteria.new), strict=True
            ):
                moved = logits.clone()
                moved[:, known:] += offset
                hits.append(hits_of(moved, truth, classes))
            on_old, on_new = hits
            yield Candidate(share, offset, accuracies(on_old), accuracies(on_new), (on_old, on_new))

    def _old_classifier(self) -> Scores:
        how = self.old.preprocessing or self.how
        imgsz = how.imgsz if how else self.imgsz
        assert self.old.model is not None
        logits, truth = self._logits(self.old.model, self._old, how, imgsz)
        return accuracies(hits_of(logits, truth, self.criteria.old))

    def _logits(
        self, model: nn.Module, part: DatasetPart, how: Preprocessing | None, imgsz: int
    ) -> tuple[Tensor, Tensor]:
        """Logits (images, classes) of the val images of a part, and their classes (images,)."""
        gpu = device(get_settings()) != "cpu"
        extractor = FeatureExtractor(
            model, "classify", imgsz, torch.device("cuda" if gpu else "cpu"), how
        )
        images = {
            image: own[0]
            for image in part.dataset.scan().splits.get("val", ())
            if (own := part.classes(image))
        }
        found = extractor.extract(list(images), dict.fromkeys(images, ()), self.job.check)
        linear = last_layer(model)
        with torch.no_grad():
            features = torch.from_numpy(found.features).to(linear.weight)
            return linear(features).float().cpu(), torch.tensor(list(images.values()))

    def _detector(
        self, model: nn.Module, description: ModelDescription, share: float
    ) -> Iterator[Candidate]:
        """The candidate with the weights of a detector."""
        with tempfile.TemporaryDirectory(dir=self.job.folder) as made:
            save_model(Path(made), model, description)
            scores = (self._evaluated(Path(made), True), self._evaluated(Path(made), False))
        yield Candidate(share, 0.0, *scores)

    def _evaluated(self, folder: Path, on_old: bool) -> Scores:
        """The metrics of the classes that are measured on the old or on the new val images."""
        part = self._old if on_old else self.dataset.new
        names = self.dataset.names
        rows = measured_rows(folder_report(folder, part.dataset, self.job), names)
        metric = METRICS[self.dataset.task]
        classes = self.criteria.old if on_old else self.criteria.new
        return {
            cls: float(rows[names[cls]][metric]) for cls in sorted(classes) if names[cls] in rows
        }

    @property
    def _old(self) -> DatasetPart:
        assert self.dataset.replayed is not None
        return self.dataset.replayed


def differ(trained: Weights, old: Weights) -> bool:
    """Whether the trained weights that the old network has, too, are different from its own."""
    return any(
        not torch.equal(trained[name][: len(value)] if value.ndim else trained[name], value.cpu())
        for name, value in old.items()
    )


def averaged(trained: Weights, old: Weights, share: float) -> dict[str, Tensor]:
    """Weighted averages of the weights and of the normalisation statistics.

    Args:
        trained: Weights of the trained network; its last layer may have more rows.
        old: Weights of the old network.
        share: Weight of the trained ones, 0 to 1.
    """
    found = {}
    for name, value in trained.items():
        new = value.clone()
        if share < 1 and name in old and value.dtype.is_floating_point:
            before = old[name].to(value)
            rows = new[: len(before)] if new.ndim else new
            rows.lerp_(before, 1 - share)
        found[name] = new
    return found


def hits_of(logits: Tensor, truth: Tensor, classes: frozenset[int]) -> Hits:
    """The hits of each of `classes` that has images.

    Args:
        logits: (images, outputs).
        truth: Class ids (images,).
        classes: The class ids to measure.
    """
    right = logits.argmax(1) == truth
    return {cls: right[truth == cls] for cls in sorted(classes) if bool((truth == cls).any())}


def accuracies(hits: Hits) -> dict[int, float]:
    """The accuracy of each class."""
    return {cls: float(right.float().mean()) for cls, right in hits.items()}


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + more
