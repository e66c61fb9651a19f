"""Finds stored evaluations by model, evaluation id, dataset or split."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from errors import Conflict, NotFound, VisionLoopError
from evaluation.letterbox import PADDED
from evaluation.recipe import DRAWN
from evaluation.store import EvaluationRow
from evaluation.submission import EvaluationStores
from inference.engine_files import served_letterbox
from models_store.versions import ModelVersion
from short_ids import SHORTEST, only_match


@dataclass(frozen=True)
class EvaluationQuery:
    """A query for an evaluation of a model; an empty field matches any.

    Attributes:
        evaluation: Id of the evaluation, or a unique beginning of it.
        dataset: Name, path, id or fingerprint of the evaluation's dataset.
        split: Split of the dataset: train, val or test.
        letterbox: Letterbox of the evaluation: rect, square or val_rect.
    """

    evaluation: str = ""
    dataset: str = ""
    split: str = ""
    letterbox: str = ""


def is_of(stores: EvaluationStores, row: EvaluationRow, dataset: str) -> bool:
    """Whether an evaluation used the dataset that a client names; an empty name means any."""
    if not dataset or dataset in (row.dataset, row.dataset_path, row.fingerprint):
        return True
    try:
        return str(stores.datasets.resolve(dataset)) == row.dataset_path
    except VisionLoopError:
        return False


def find_evaluation(
    stores: EvaluationStores, model_id: str, query: EvaluationQuery
) -> EvaluationRow:
    """The newest evaluation of a model that matches.

    An empty query means the evaluation that the model's metrics are from, else the newest one.

    Raises:
        ModelNotFound, NotFound: There is no such model, or no such evaluation of it.
        ValidationFailed: The ids of several evaluations begin with the given one.
    """
    model = stores.registry.get(model_id)
    rows = stores.evaluations.history(model.id)
    noted = (model.metrics or {}).get("evaluation")
    if query == EvaluationQuery() and any(row.id == noted for row in rows):
        query = EvaluationQuery(evaluation=str(noted))
    wanted = _full_id(query.evaluation, rows)
    for row in rows:
        matches = wanted in ("", row.id) and query.split in ("", row.split)
        matches &= query.letterbox in ("", row.letterbox)
        if matches and is_of(stores, row, query.dataset):
            return row
    if not rows:
        raise NotFound(
            f"No evaluation of {model.id} is stored here. Start one: "
            f"POST /metrics/{model.id}/evaluate."
        )
    raise NotFound(
        f"{model.id} has no such evaluation. GET /metrics/{model.id}/history lists its "
        f"{len(rows)} evaluations."
    )


def _full_id(evaluation: str, rows: Sequence[EvaluationRow]) -> str:
    """The id that a client names by its beginning; any other text unchanged."""
    if len(evaluation) < SHORTEST or any(row.id == evaluation for row in rows):
        return evaluation
    start = evaluation.lower()
    found = [row.id for row in rows if row.id.startswith(start)]
    return only_match(start, found, "evaluations") or evaluation


def read_report(stores: EvaluationStores, row: EvaluationRow) -> dict[str, Any]:
    """The report of an evaluation.

    Raises:
        NotFound: The file report.json does not exist.
    """
    try:
        return stores.evaluations.report(row)
    except OSError:
        raise NotFound(
            f"The report of this evaluation no longer exists. Evaluate {row.model_id} again."
        ) from None


def common_evaluations(
    stores: EvaluationStores, a: ModelVersion, b: ModelVersion, dataset: str, split: str
) -> tuple[EvaluationRow, EvaluationRow]:
    """The newest evaluations of two models on the same images, with one letterbox.

    Raises:
        Conflict: One is missing; the message names the request that creates it.
    """
    of_a = stores.evaluations.history(a.id)
    of_b = stores.evaluations.history(b.id)
    others: list[tuple[EvaluationRow, EvaluationRow]] = []  # of the same images
    for row in of_b:
        if is_of(stores, row, dataset) and split in ("", row.split):
            for other in of_a:
                if (other.fingerprint, other.split) == (row.fingerprint, row.split):
                    if other.letterbox == row.letterbox:
                        return other, row
                    others.append((other, row))
    if others:
        raise Conflict(_of_other_letterboxes(stores, a, *others[0]))
    wanted = f" on {dataset!r}" if dataset else ""
    raise Conflict(
        f"{a.id} and {b.id} were not evaluated on the same images{wanted}. "
        f"{_remedy(stores, a, of_a, b, of_b)}"
    )


def _of_other_letterboxes(
    stores: EvaluationStores, a: ModelVersion, one: EvaluationRow, other: EvaluationRow
) -> str:
    """Why two evaluations on the same images are not compared, and which to make again."""
    served = served_letterbox(a.path, a.description, stores.registry.settings)
    stale = [row for row in (one, other) if row.letterbox != served] or [one, other]
    again = " and ".join(_request(stores, row.model_id, row) for row in stale)
    return (
        f"For the evaluation of {one.model_id} images were padded {PADDED[one.letterbox]}, for "
        f"that of {other.model_id} {PADDED[other.letterbox]}: they are not compared. Run it "
        f"again: {again}."
    )


def _request(stores: EvaluationStores, model_id: str, row: EvaluationRow) -> str:
    """The request that evaluates a model on the images of an evaluation."""
    body = {"dataset_path": dataset_reference(stores, row), "split": row.split}
    return f"POST /metrics/{model_id}/evaluate {json.dumps(body, ensure_ascii=False)}"


def _remedy(
    stores: EvaluationStores,
    a: ModelVersion,
    of_a: list[EvaluationRow],
    b: ModelVersion,
    of_b: list[EvaluationRow],
) -> str:
    """A sentence on which evaluation to start."""
    for done, lacking in ((of_a, b), (of_b, a)):
        if done:
            row = done[0]
            return (
                f"{row.model_id} was evaluated on {row.dataset!r}: "
                f"{_request(stores, lacking.id, row)}."
            )
    return (
        f"Evaluate both with the same dataset_path: POST /metrics/{a.id}/evaluate and "
        f"POST /metrics/{b.id}/evaluate."
    )


def dataset_reference(stores: EvaluationStores, row: EvaluationRow) -> str:
    """The `dataset_path` for an evaluation's dataset: DRAWN, the id of an upload, or a path."""
    if row.dataset == DRAWN:
        return DRAWN
    with contextlib.suppress(VisionLoopError):
        if str(stores.datasets.resolve(row.dataset)) == row.dataset_path:
            return row.dataset
    return row.dataset_path
