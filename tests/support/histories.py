"""A model name with a history: versions, evaluations made by hand, decisions, jobs, revisions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dataset.revisions import NOTE, REVISIONS
from evaluation.gate import Gate
from evaluation.promotion import Pair, judge
from evaluation.store import REPORT, EvaluationRow, EvaluationStore
from evaluation.target import EvaluationTarget
from jobs.store import JobStore
from models_store.description import ONNX_FILE, WEIGHTS_FILE, record
from models_store.registry import Registry
from models_store.versions import ModelVersion
from tests.support.made_reports import report
from tests.support.small_models import small_description

GOOD = {"round": 0.9, "square": 0.5, "star": 0.7}
BETTER = {"round": 0.9, "square": 0.6, "star": 0.7}
WORSE = {"round": 0.5, "square": 0.95, "star": 0.8}  # better on the whole, but not in `round`


class History:
    """What happens to the name `signs`; files are written to `folder`."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry = registry
        self.folder = folder
        self.evaluations = EvaluationStore(registry.database)
        self.jobs = JobStore(registry.database)
        self._made = 0

    def publish(self, promote: bool = False, **source: Any) -> ModelVersion:
        made = self._new("model")
        small_description("detect").save(made)
        for name in (WEIGHTS_FILE, ONNX_FILE):
            (made / name).write_bytes(b"never loaded")
        record(made, "onnx", {"size": "any"})
        facts = {"kind": "import"} | source
        return self.registry.publish(made, "signs", facts, promote=promote)

    def evaluate(
        self, model: ModelVersion, classes: dict[str, float], job_id: str | None = None
    ) -> EvaluationRow:
        output = self._new("evaluation")
        labels = [*classes, "background"]
        matrix = [[0] * len(labels) for _ in labels]
        score = {"confidence": 0.4, "precision": 0.9, "recall": 0.8, "f1_score": 0.85}
        made = report(model.id, classes) | {
            "confusion": {"labels": labels, "matrix": matrix, "confidence": 0.25},
            "at_best_f1": score,
            "at_serving": score,
        }
        (output / REPORT).write_text(json.dumps(made))
        target = EvaluationTarget(
            model_folder=self.folder,
            dataset=SimpleNamespace(fingerprint="f", root=self.folder),  # type: ignore[arg-type]
            model_id=model.id,
            dataset_name="drawn",
        )
        return self.evaluations.add(target, output, made["figures"], "rect", job_id)

    def judge(self, candidate: EvaluationRow, promoted: EvaluationRow, by: str = "test") -> bool:
        """Promote a version or refuse it, as the gate does."""
        model, before = (self.registry.get(row.model_id) for row in (candidate, promoted))
        pair = Pair(candidate, promoted)
        found = judge(model, before, [pair], Gate(), self.evaluations)
        if found.decision.promote:
            self.registry.promote(model.id, found.why(by), found.expected_promoted)
        else:
            self.registry.refuse(model.id, found.why(by))
        return found.decision.promote

    def revise(self, dataset: str, number: int, at: str, corrections: dict[str, Any]) -> None:
        folder = self.registry.settings.paths.datasets / dataset / REVISIONS / f"{number:06}"
        folder.mkdir(parents=True)
        note = {
            "number": number, "task": "detect", "names": ["round"], "keypoint_names": [],
            "pictures": 9, "annotated": 4, "to_review": 0, "objects": 12, "kept": False,
            "created_at": at, "corrections": corrections,
        }  # fmt: skip
        (folder / NOTE).write_text(json.dumps(note))

    def _new(self, kind: str) -> Path:
        self._made += 1
        made = self.folder / f"{kind}-{self._made}"
        made.mkdir()
        return made
