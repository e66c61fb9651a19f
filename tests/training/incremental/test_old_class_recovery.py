"""A network that lost old classes is replaced by the best average with the old network."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models_store.weights import describe_mobilenet, load_weights, save_model
from tests.support.trainer_job import RecordingJob
from training.incremental import old_class_recovery
from training.incremental.epoch_criteria import EpochCriteria
from training.incremental.old_class_recovery import (
    Candidate,
    OldClassRecovery,
    accuracies,
    averaged,
    differ,
)
from training.start_weights import Start

OLD, NAMES = ("circle", "square"), ("circle", "square", "triangle")
# Inputs of the networks below, and the classes. Old: 0 at +x, 1 at -x; new: 2 at +y.
ON_OLD = [((4.0, 0.0), 0), ((3.0, 0.2), 0), ((-4.0, 0.0), 1), ((-3.0, 0.2), 1)]
ON_NEW = [((0.0, 4.0), 2), ((0.1, 5.0), 2)]


class Network(nn.Module):
    """A classifier of two inputs."""

    def __init__(self, body: list[list[float]], rows: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.body = nn.Linear(2, 2, bias=False)
        self.classifier = nn.Sequential(nn.Linear(2, len(rows)))
        self.register_buffer("steps", torch.tensor(7))
        with torch.no_grad():
            self.body.weight.copy_(torch.tensor(body))
            linear: Any = self.classifier[0]
            linear.weight.copy_(torch.tensor(rows))
            linear.bias.copy_(torch.tensor(bias))


class Extractor:
    """Stands for the feature extractor: an image is its inputs."""

    def __init__(self, model: Network, *_: Any) -> None:
        self.model = model

    @torch.no_grad()
    def extract(self, images: list[Path], *_: Any) -> Any:
        inputs = torch.tensor([[float(x) for x in image.name.split("_")] for image in images])
        return SimpleNamespace(features=self.model.body(inputs).numpy().astype(np.float32))


PLAIN = [[1.0, 0.0], [0.0, 1.0]]
ROWS = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]


def part(samples: Any) -> Any:
    images = {Path(f"{x}_{y}"): (cls,) for (x, y), cls in samples}
    dataset = SimpleNamespace(scan=lambda: SimpleNamespace(splits={"val": tuple(images)}))
    return SimpleNamespace(dataset=dataset, classes=images.__getitem__)


@pytest.fixture
def recovered(
    tmp_path: Path, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> Any:  # (trained network) → the recovery, after it ran
    monkeypatch.setattr(old_class_recovery, "FeatureExtractor", Extractor)
    dataset: Any = SimpleNamespace(
        task="classify", names=NAMES, new=part(ON_NEW), replayed=part(ON_OLD)
    )

    def run(model: Network) -> tuple[OldClassRecovery, dict[str, Tensor]]:
        old = Start({}, Network(PLAIN, ROWS[:2], [0.0, 0.0]), OLD)
        criteria = EpochCriteria(frozenset({0, 1}), frozenset({2}), True)
        recovery = OldClassRecovery(old, tmp_path, dataset, criteria, 64, None, 0.05, job)
        save_model(tmp_path, model, describe_mobilenet(3, 64, names=NAMES))
        recovery.model_saved(None, model, tmp_path)
        return recovery, load_weights(tmp_path / "model.safetensors")

    return run


def test_nothing_is_changed_where_nothing_was_lost(recovered: Any) -> None:
    model = Network([[0.75, 0.25], [0.0, 1.0]], ROWS, [0.0, 0.0, 0.0])
    recovery, saved = recovered(copy.deepcopy(model))
    assert not recovery.sentences
    assert not recovery.means
    assert torch.equal(saved["body.weight"], model.body.weight)


def test_lost_classes_come_back_with_an_average_of_the_weights(recovered: Any) -> None:
    # The trained body turns the old classes around; a quarter of it does not.
    turned = Network([[-1.0, 0.0], [0.0, 1.0]], ROWS, [0.0, 0.0, 0.0])
    recovery, saved = recovered(turned)
    assert torch.allclose(saved["body.weight"], torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    assert torch.equal(saved["classifier.0.weight"], torch.tensor(ROWS))
    assert torch.equal(saved["steps"], torch.tensor(7))
    assert recovery.means == {"old_classes": 1.0, "new_classes": 1.0}
    (said,) = recovery.sentences
    assert "The training lost more than the gate allows of 2 old classes" in said
    assert "the weights are 25% the trained ones and 75% those of the old model" in said
    assert "old classes from 0.000 to 1.000 and new classes from 1.000 to 1.000" in said
    assert "none of them is lost any more" in said
    assert said in recovery.job.lines


def test_lost_classes_come_back_with_lower_logits_of_new_classes(recovered: Any) -> None:
    greedy = Network(PLAIN, ROWS, [0.0, 0.0, 4.2])  # takes the old images, by up to 1.4
    recovery, saved = recovered(greedy)
    assert saved["classifier.0.bias"].tolist() == pytest.approx([0.0, 0.0, 2.7])
    assert "the logits of new classes are lowered by 1.5" in recovery.sentences[0]
    assert recovery.means == {"old_classes": 1.0, "new_classes": 1.0}


def test_the_trained_weights_stay_if_no_average_is_better(recovered: Any) -> None:
    # The rows of the old classes are lost beyond what an offset or a quarter can give back.
    far = [[-9.0, 0.0], [9.0, 0.0], [0.0, 1.0]]
    model = Network(PLAIN, far, [0.0, 0.0, 0.0])
    recovery, saved = recovered(copy.deepcopy(model))
    linear: Any = model.classifier[0]
    assert torch.equal(saved["classifier.0.weight"], linear.weight)
    assert "the trained weights are published" in recovery.sentences[0]
    assert not recovery.means


def candidate(offset: float, old: list[str], new: str) -> Candidate:
    """With a string for each class: 1 for each image that is classified rightly, else 0."""
    on_old, on_new = (
        {cls: torch.tensor([sign == "1" for sign in signs]) for cls, signs in enumerate(group)}
        for group in (old, [new])
    )
    return Candidate(1.0, offset, accuracies(on_old), accuracies(on_new), (on_old, on_new))


@pytest.mark.parametrize(
    ("old", "new", "better"),
    [
        (["1111111100", "1111111111"], "1111100000", False),  # as many
        (["1111111111", "1111111111"], "1111100000", False),  # two images more: chance
        (["1111111100", "1111111111"], "1111111111", True),
        (["1111111111", "1111111111"], "1111111000", True),  # two in each of both
        (["1111111111", "1111111111"], "1111000000", False),  # two more of old, one less of new
        (["1111111000", "1111111111"], "1111111111", False),  # new classes gain, old ones lose
    ],
)
def test_a_candidate_has_to_recover_more_than_chance(
    old: list[str], new: str, better: bool
) -> None:
    trained = candidate(0.0, ["1111111100", "1111111111"], "1111100000")
    assert candidate(-0.5, old, new).recovers(trained) is better


@pytest.mark.parametrize(("gained", "better"), [(1, False), (3, False), (5, True)])
def test_chance_is_greatest_with_one_image_of_each_class(gained: int, better: bool) -> None:
    trained = candidate(0.0, ["0"] * 10, "1")
    assert candidate(-0.5, ["1"] * gained + ["0"] * (10 - gained), "1").recovers(trained) is better


def test_an_average_keeps_what_the_old_network_lacks() -> None:
    trained = {"rows": torch.tensor([[2.0], [4.0], [6.0]]), "count": torch.tensor(3)}
    old = {"rows": torch.tensor([[0.0], [0.0]]), "count": torch.tensor(1)}
    found = averaged(trained, old, 0.25)
    assert found["rows"].flatten().tolist() == [0.5, 1.0, 6.0]
    assert int(found["count"]) == 3
    assert trained["rows"][0, 0] == 2
    assert differ(trained, old)
    assert not differ({"rows": torch.tensor([[0.0], [0.0], [9.0]])}, {"rows": old["rows"]})


def test_a_detector_is_measured_with_each_average(
    tmp_path: Path, job: RecordingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(folder: Path, dataset: str, _: Any) -> Any:
        old = dataset == "old"
        turn = float(load_weights(folder / "model.safetensors")["body.weight"][0, 0])
        value = (0.8 if turn > 0 else 0.1) if old else 0.6
        row = {"name": "circle" if old else "triangle", "instances": 3, "mAP50_95": value}
        return {"classes": [row]}

    monkeypatch.setattr(old_class_recovery, "folder_report", report)
    dataset: Any = SimpleNamespace(
        task="detect",
        names=NAMES,
        new=SimpleNamespace(dataset="new"),
        replayed=SimpleNamespace(dataset="old"),
    )
    base = tmp_path / "base"
    for folder in (base, tmp_path / "model"):
        folder.mkdir()
    network = Network(PLAIN, ROWS[:2], [0.0, 0.0])
    save_model(base, network, describe_mobilenet(2, 64, names=OLD))
    model = Network([[-1.0, 0.0], [0.0, 1.0]], ROWS, [0.0, 0.0, 0.0])
    save_model(tmp_path / "model", model, describe_mobilenet(3, 64, names=NAMES))
    criteria = EpochCriteria(frozenset({0}), frozenset({2}), True)
    recovery = OldClassRecovery(
        Start({}, network, OLD), base, dataset, criteria, 64, None, 0.05, job
    )
    recovery.model_saved(None, model, tmp_path / "model")
    saved = load_weights(tmp_path / "model" / "model.safetensors")
    assert float(saved["body.weight"][0, 0]) == pytest.approx(0.5)
    assert recovery.means == {"old_classes": 0.8, "new_classes": 0.6}
    assert "'circle'" in recovery.sentences[0]
