"""Commits a person's accepted drafts: one revision of all of them, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from filelock import Timeout
from sqlalchemy import select
from sqlalchemy.orm import Session

from annotation.corrections.submission import CorrectionPolicy, CorrectionSubmission
from annotation.diff import KINDS, compare_annotations
from annotation.draft_tables import Draft
from annotation.drafts.checks import CheckedDraft, check_drawn
from annotation.drafts.form import are_same, as_stored, base_of, from_shapes
from annotation.drafts.image_state import ImageReader, ImageState
from annotation.drafts.store import DraftStore, Place
from annotation.image_records import HUMAN_KINDS
from annotation.revision_records import for_task
from annotation.tables import AnnotationEntry
from dataset.documents.submission import DescribedImage, Size, Submission
from errors import BackendUnavailable, Conflict, DraftConflict, NotFound, ValidationFailed
from formats.annotations import Annotation, Annotations
from models_store.description import Task

LOCK_TIMEOUT = 300.0  # seconds to wait for another commit to the same dataset
MAX_CHANGED = 200  # maximum number of images whose changes an answer lists

Marks = Mapping[str, frozenset[tuple[str, int]]]
"""SHA-256 of an image → key and number of each of its entries by people."""


@dataclass(frozen=True)
class CommitRequest:
    """What is to be committed.

    Attributes:
        key: The client's name of this commit: sent again, it is answered as the first time.
        contents: SHA-256 of the images; None: all that the author has accepted.
        mine: SHA-256 of images whose drafts replace what others have stored meanwhile.
        confirm: The removal of many annotations is intended.
        dry_run: Store nothing; return what would change.
    """

    key: str | None = None
    contents: Sequence[str] | None = None
    mine: frozenset[str] = frozenset()
    confirm: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Drawing:
    """A draft beside the image that it is of."""

    draft: Draft
    state: ImageState
    objects: tuple[Annotation, ...]
    checked: CheckedDraft

    @property
    def found(self) -> Annotations:
        """The draft as annotations of the image."""
        return Annotations(self.state.name, *self.state.size, self.objects)

    @property
    def is_conflict(self) -> bool:
        """Whether others have annotated the image since, and otherwise than the draft."""
        return self.state.base != self.draft.base and not self.is_stored

    @property
    def is_stored(self) -> bool:
        """Whether the image has exactly these objects already, as after a commit that was killed
        before its drafts were deleted."""
        stored = self.state.stored
        return stored is not None and are_same(self.checked.result, stored.objects)

    @property
    def becomes(self) -> str:
        """The base of what a commit stores; see `form.base_of`."""
        if self.is_stored:
            return self.state.base
        return base_of(replace(self.found, objects=(*self.stored, *self.checked.inside)))

    @property
    def stored(self) -> tuple[Annotation, ...]:
        """The objects that the dataset has exactly so, as it has them."""
        return as_stored(self.checked.stored, self.state.stored)

    def conflict(self) -> dict[str, Any]:
        """Who stands against whom."""
        return {
            "content": self.draft.content,
            "image": self.state.name,
            "yours": {"author": self.draft.author, "at": self.draft.updated_at},
            "theirs": {"author": self.state.by, "at": self.state.at or None},
        }


@dataclass(frozen=True)
class DraftCommitter:
    """Commits drafts of one author in one dataset.

    Reads and writes files: call it off the event loop.

    Attributes:
        author: The person.
        submission: Takes the corrections of the dataset.
        drafts: The store of drafts.
        reader: Reads the images' newest annotations.
    """

    author: str
    submission: CorrectionSubmission
    drafts: DraftStore
    reader: ImageReader

    @property
    def dataset_id(self) -> str:
        return self.submission.dataset_id

    def commit(self, request: CommitRequest) -> dict[str, Any]:
        """Make one revision of the accepted drafts, which are deleted then.

        Returns:
            The answer of a correction, with `committed`, `conflicts`, `changes` and `replayed`.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset, or a listed draft is missing.
            ValidationFailed: No draft is accepted, a listed one is not, or one cannot be stored.
            DraftConflict: Others have annotated images meanwhile that `mine` does not name.
            ConfirmationRequired: Most annotations would be removed.
            BackendUnavailable: Other requests have been changing the dataset for too long.
        """
        lock = self.drafts.database.exclusive(f"commit-{self.dataset_id}", LOCK_TIMEOUT)
        self.submission.datasets.get(self.dataset_id)
        if request.dry_run:
            return self._commit(request)
        try:
            with lock:
                return self._answered(request) or self._commit(request)
        except Timeout:
            raise BackendUnavailable(
                f"Other requests are still changing '{self.dataset_id}'. Nothing was changed. "
                "Your drafts are kept. Try again."
            ) from None

    def _answered(self, request: CommitRequest) -> dict[str, Any] | None:
        if request.key is None:
            return None
        found = self.drafts.answered(self.dataset_id, self.author, request.key)
        return found and found | {"replayed": True}

    def _commit(self, request: CommitRequest) -> dict[str, Any]:
        drafts = self._accepted(request)
        marks = self._marks([draft.content for draft in drafts])
        task = self.submission.datasets.get(self.dataset_id)["task"]
        names, _ = self.submission.names()
        drawings = [self._drawing(draft, task, names) for draft in drafts]
        conflicts = [one for one in drawings if one.is_conflict]
        open_ones = [one for one in conflicts if one.draft.content not in request.mine]
        if open_ones and not request.dry_run:
            raise _conflict(open_ones)
        policy = CorrectionPolicy(
            confirm=request.confirm,
            dry_run=request.dry_run,
            author=self.author,
            check=partial(self._check_unchanged, marks),
            finish=True,
            differs=not all(one.is_stored for one in drawings),
        )
        sent = Submission([self._described(one) for one in drawings])
        answer = replace(self.submission, policy=policy).take(sent)
        answer |= {
            "author": self.author,
            "committed": [draft.content for draft in drafts],
            "conflicts": [one.conflict() for one in conflicts],
            "changes": self._changes(drawings),
            "replayed": False,
        }
        if not request.dry_run:
            bases = {one.draft.content: one.becomes for one in drawings}
            self.drafts.finish(drafts, bases, request.key, answer)
        return answer

    def _accepted(self, request: CommitRequest) -> list[Draft]:
        """The drafts to commit, in order of their images."""
        if request.contents is None:
            found = self.drafts.list(self.dataset_id, self.author, "accepted")
            if not found:
                raise ValidationFailed(
                    f"{self.author} has no accepted draft in '{self.dataset_id}'. Accept images "
                    "first: PUT a draft with the state 'accepted'."
                )
            return sorted(found, key=lambda draft: draft.content)
        found = []
        for content in sorted(set(request.contents)):
            draft = self.drafts.get(Place(self.dataset_id, content, self.author))
            if draft.state != "accepted":
                raise ValidationFailed(
                    f"The draft of {draft.name or content} is not accepted; it is {draft.state}. "
                    "Accept it first, or leave it out."
                )
            found.append(draft)
        if not found:
            raise ValidationFailed("'contents' is empty: name images, or leave it out for all.")
        return found

    def _drawing(self, draft: Draft, task: Task, names: Sequence[str]) -> Drawing:
        """A draft beside its image.

        Raises:
            NotFound: The image is gone.
            ValidationFailed: An object of it cannot be stored.
        """
        try:
            state = self.reader.current(self.dataset_id, draft.content)
        except NotFound:
            raise NotFound(
                f"The image {draft.name or draft.content} is not in '{self.dataset_id}' any more. "
                "Nothing was committed. Discard its draft, or commit the others alone: list them "
                "in 'contents'."
            ) from None
        objects = as_stored(from_shapes(draft.objects), state.stored)
        return Drawing(draft, state, objects, check_drawn(objects, state, task, names))

    def _described(self, drawing: Drawing) -> DescribedImage:
        """A draft as a correction describes an image."""
        state, found = drawing.state, drawing.checked

        def read(size: Size) -> Annotations:
            return Annotations(state.name, *size, found.changed)

        return DescribedImage(
            name=state.name,
            read=read,
            content=drawing.draft.content,
            where=state.name,
            empty="finished",
            stored=drawing.stored,
        )

    def _changes(self, drawings: Sequence[Drawing]) -> dict[str, Any]:
        """What the drafts change: the counts of all images, and of each that changes."""
        task = self.submission.datasets.get(self.dataset_id)["task"]
        total: dict[str, int] = dict.fromkeys(KINDS, 0)
        rows: list[dict[str, Any]] = []
        for one in drawings:
            empty = Annotations(one.state.name, *one.state.size)
            before = one.state.stored or one.state.prelabels or empty
            changes = compare_annotations(for_task(before, task), for_task(one.found, task))
            counts: dict[str, int] = {k: sum(c.kind == k for c in changes) for k in KINDS}
            for kind, count in counts.items():
                total[kind] += count
            by = one.state.by or one.state.model_id or None
            rows.append(
                {
                    "content": one.draft.content,
                    "image": one.state.name,
                    "before": by,
                    "empty": not one.objects,
                    **counts,
                }
            )
        return {"images": len(rows), **total, "changed": rows[:MAX_CHANGED]}

    def _marks(self, contents: Sequence[str]) -> Marks:
        with self.drafts.database.read() as session:
            return _marks(session, self.dataset_id, contents)

    def _check_unchanged(self, marks: Marks, session: Session) -> None:
        """Raises Conflict if a person's annotation has arrived since `marks` were read."""
        if _marks(session, self.dataset_id, list(marks)) != marks:
            raise Conflict(
                "Somebody has just annotated one of these images. Nothing was changed, and your "
                "drafts are kept. Send it again: the answer then says which image it is."
            )


def _marks(session: Session, dataset_id: str, contents: Sequence[str]) -> Marks:
    row = AnnotationEntry
    query = select(row.content, row.key, row.number).where(
        row.dataset_id == dataset_id, row.kind.in_(HUMAN_KINDS)
    )
    found: dict[str, set[tuple[str, int]]] = {content: set() for content in contents}
    for content, key, number in session.execute(query):
        if content in found:
            found[content].add((key, number))
    return {content: frozenset(keys) for content, keys in found.items()}


def _conflict(drawings: Sequence[Drawing]) -> DraftConflict:
    first = drawings[0]
    more = f" and {len(drawings) - 1} more images" if len(drawings) > 1 else ""
    own = " in another window" if first.state.by == first.draft.author else ""
    return DraftConflict(
        f"{first.state.by} has annotated {first.state.name}{more}{own} since {first.draft.author} "
        "drew on it. Nothing was committed, and nothing was overwritten. To commit yours in place "
        "of theirs, list the image in 'mine'; to keep theirs, discard your draft.",
        conflicts=[one.conflict() for one in drawings],
    )
