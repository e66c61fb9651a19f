"""The timeline of a model name, merged from the records of every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from database import Database
from dataset.shared.tables import SharedDataset
from errors import ModelNotFound, ValidationFailed
from evaluation.timeline.entry import KINDS, Entry, EntryKind
from evaluation.timeline.page import timeline
from models_store.decision_log import DecisionReason
from models_store.registry import Registry
from models_store.store import ModelStore
from models_store.tables import record_event
from settings import Settings
from tests.support.histories import BETTER, GOOD, WORSE, History
from tests.support.two_machines import machine_settings


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    registry = Registry(Database(Settings(home=tmp_path / "home")), ModelStore(tmp_path / "bento"))
    yield History(registry, tmp_path)
    registry.database.close()


def page(
    history: History, limit: int = 100, before: str = "", *kinds: EntryKind
) -> tuple[list[Entry], bool]:
    return timeline(history.registry, history.evaluations, "signs", limit, before, kinds)


def told(history: History, *kinds: EntryKind) -> list[tuple[str, str]]:
    return [(entry.kind, entry.text) for entry in page(history, 100, "", *kinds)[0]]


def test_a_promotion_a_refusal_and_a_rollback_tell_why_and_where_to_read_more(
    history: History,
) -> None:
    old = history.publish(promote=True)
    first = history.evaluate(old, GOOD)
    better, worse = history.publish(kind="train", mode="regular", dataset="d"), history.publish()
    rows = [history.evaluate(better, BETTER), history.evaluate(worse, WORSE)]
    assert history.judge(rows[0], first, "API, token alice")
    assert not history.judge(rows[1], rows[0], "API, address 10.0.0.1")
    history.registry.rollback("signs", DecisionReason("command line, root"))

    back, refused, promoted = page(history, 3)[0]
    assert (back.kind, back.who) == ("rolled_back", "command line")
    assert back.text == f"'signs' went back to {old.id} from {better.id}."
    assert (refused.kind, refused.who, refused.regressed) == ("refused", "open", ("round",))
    assert "'round' regressed from 0.900 to 0.500" in " ".join(refused.reasons)
    assert refused.text == f"The gate refused {worse.id}; {better.id} stays promoted."
    assert (refused.evaluation, refused.compared) == (rows[1].id, (better.id, worse.id))
    assert (promoted.kind, promoted.who, promoted.regressed) == ("promoted", "alice", ())
    assert promoted.text == f"{better.id} was promoted instead of {old.id}."
    assert (promoted.model_id, promoted.evaluation) == (better.id, rows[0].id)


def test_everything_that_happens_is_told_the_newest_first(history: History) -> None:
    first = history.publish(promote=True, file="signs.pt")
    history.registry.activate("signs", "API, token bob")
    job = history.jobs.create("training", config={}, recipe={}, model_name="signs")
    trained = history.publish(kind="train", mode="incremental", dataset="street-1", job_id=job.id)
    row = history.evaluate(trained, GOOD)
    with history.registry.database.write() as session:
        tag = (trained.name, trained.version)
        record_event(session, "engine", tag, {"engine": "openvino", "reason": "It is fastest."})
        record_event(session, "drift", tag, {"verdict": "large shift", "index": 0.412})
    failed = history.jobs.create("training", config={}, recipe={}, model_name="signs")
    history.jobs.finish(failed.id, "failed", "Out of memory.")
    history.registry.delete(trained.id, DecisionReason("API, token bob"))
    assert told(history) == [
        ("deleted", f"{trained.id} was deleted."),
        ("failed", "The training of 'signs' failed."),
        ("drift", f"Live traffic of {trained.id} compared with its training data: large shift "
         "(index 0.41)."),
        ("engine", f"{trained.id} is served by openvino on this machine."),
        ("evaluated", f"{trained.id} was evaluated on drawn (val): mAP50-95 0.700."),
        ("trained", f"{trained.id} was trained incrementally on street-1."),
        ("activated", f"{first.id} answers requests without a model id, and follows promotions."),
        ("promoted", f"{first.id} was promoted."),
        ("imported", f"{first.id} was imported from signs.pt."),
    ]  # fmt: skip
    [entry] = page(history, 100, "", "failed")[0]
    assert (entry.job_id, entry.reasons) == (failed.id, ("Out of memory.",))
    assert page(history, 100, "", "evaluated")[0][0].evaluation == row.id


def test_comparisons_that_were_asked_for_are_told(history: History) -> None:
    old, new = history.publish(), history.publish()
    one, other = history.evaluate(old, GOOD), history.evaluate(new, BETTER)
    (history.evaluations.folder(other) / f"compared-{one.id}.json").write_text("{}")
    [entry] = page(history, 100, "", "compared")[0]
    assert entry.text == f"{new.id} was compared with {old.id} on drawn (val)."
    assert entry.compared == (old.id, new.id)


def test_corrections_of_the_data_that_it_learned_from_are_told(history: History) -> None:
    model = history.publish(kind="train", dataset="street-1")
    counts = {"accepted": 5, "moved": 2, "relabelled": 0, "added": 1, "removed": 0}
    history.revise("street-1", 1, "2026-01-01T10:00:00.000+00:00", {"upload": counts})
    history.revise("other-1", 1, "2026-01-02T10:00:00.000+00:00", {model.id: counts})
    history.revise("foreign-1", 1, "2026-01-03T10:00:00.000+00:00", {"cars:1": counts})
    assert told(history, "corrections") == [
        ("corrections", f"Corrections came in revision 1 of {name} (4 of 9 images annotated by "
         "people): 5 accepted, 2 moved, 1 added.")
        for name in ("other-1", "street-1")
    ]  # fmt: skip
    assert [entry.dataset for entry in page(history, 1, "", "corrections")[0]] == ["other-1@1"]


def test_corrections_of_datasets_without_a_copy_here_are_told(
    tmp_path: Path, store_url: str
) -> None:
    settings = machine_settings(tmp_path, "a", store_url)
    registry = Registry(Database(settings), ModelStore(tmp_path / "bento"))
    try:
        history = History(registry, tmp_path)
        model = history.publish(kind="train", dataset="street-1")
        note = {
            "number": 2, "task": "detect", "names": ["round"], "keypoint_names": [],
            "pictures": 9, "annotated": 4, "to_review": 0, "objects": 12, "kept": False,
            "created_at": "2026-01-01T10:00:00.000+00:00", "corrections": {model.id: {"moved": 3}},
        }  # fmt: skip
        with registry.database.write() as session:
            session.add(
                SharedDataset(
                    id="street-1", number=1, card={}, first_card=None, revisions=[note], parts=[]
                )
            )
        [(_, text)] = told(history, "corrections")
        assert text.startswith("Corrections came in revision 2 of street-1")
        assert not settings.paths.datasets.exists()
    finally:
        registry.database.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pages_leave_nothing_out_and_repeat_nothing(history: History, size: int) -> None:
    """Though everything happened within a few milliseconds."""
    for _ in range(3):
        model = history.publish(promote=True)
        history.registry.activate(model.id)
        history.evaluate(model, GOOD)
    history.revise("street-1", 1, "2026-01-01T10:00:00.000+00:00", {f"{model.id}": {"moved": 1}})
    whole, more = page(history)
    assert not more
    found: list[Entry] = []
    before, more = "", True
    while more:
        part, more = page(history, size, before)
        assert len(part) == size or not more
        found += part
        before = part[-1].id
    assert found == whole
    assert len({entry.id for entry in found}) == len(found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_filter_shows_its_kind_only(history: History, kind: EntryKind) -> None:
    old = history.publish(promote=True)
    history.judge(history.evaluate(history.publish(), WORSE), history.evaluate(old, GOOD))
    found = page(history, 100, "", kind)[0]
    assert {entry.kind for entry in found} <= {kind}
    assert [e for e in page(history)[0] if e.kind == kind] == found


def test_a_name_that_was_deleted_has_its_history_and_one_that_never_was_has_none(
    history: History,
) -> None:
    model = history.publish()
    history.registry.delete(model.id)
    assert [kind for kind, _ in told(history)] == ["deleted", "imported"]
    with pytest.raises(ModelNotFound):
        timeline(history.registry, history.evaluations, "cars", 10)


@pytest.mark.parametrize("before", ["x", "2026", "2026-01-01T10:00:00.000Z_", "٣" * 40])
def test_a_strange_place_to_go_on_from_is_refused(history: History, before: str) -> None:
    history.publish()
    with pytest.raises(ValidationFailed, match="'before' must be"):
        page(history, 10, before)
