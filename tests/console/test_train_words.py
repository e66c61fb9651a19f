"""The Chinese words of the training forms are complete. No browser."""

from __future__ import annotations

import re
from pathlib import Path

from api.training_fields import TrainingFields
from training.planning import hyperparameters

WORDS = Path(__file__).parents[2] / "console" / "src" / "screens" / "train" / "fields.ts"


def test_every_field_of_the_forms_has_chinese_words() -> None:
    names = re.findall(r'^  "?([\w.]+)"?: \["', WORDS.read_text(encoding="utf-8"), re.MULTILINE)
    fields = TrainingFields.model_fields.keys() - {"project", "hyper"}
    assert sorted(names) == sorted([*fields, *(f"hyper.{one}" for one in hyperparameters.NAMES)])
