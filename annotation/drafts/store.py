"""The store of drafts. A draft is replaced only by a client that has seen its newest version."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Row, delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from annotation.draft_tables import (
    LONGEST_AUTHOR,
    Claim,
    CommittedDraft,
    Draft,
    DraftCommit,
    Skip,
)
from database import Database, blocks, now
from errors import NotFound, PreconditionFailed

DraftState = Literal["draft", "accepted", "skipped"]
STATES: tuple[DraftState, ...] = get_args(DraftState)
NEWEST = (Draft.updated_at.desc(), Draft.content, Draft.author)
WITHOUT_OBJECTS = tuple(column for column in Draft.__table__.columns if column.key != "objects")
ANY = "*"  # in place of a version: whichever the newest is
ANSWERS_DAYS = 30  # for so long a repeated commit is answered as the first
MAX_REPLACED = 50  # bases that are remembered of an author's commits in a row


@dataclass(frozen=True)
class Place:
    """Whose draft it is, and of which image.

    Attributes:
        dataset_id: Id of the dataset.
        content: SHA-256 of the image's file.
        author: The person.
    """

    dataset_id: str
    content: str
    author: str


@dataclass(frozen=True)
class Drawn:
    """What a draft holds.

    Attributes:
        objects: The objects in the console's form.
        state: `draft`: being drawn; `accepted`: to be committed; `skipped`: left for others.
        base: `form.base_of` the annotations that it was drawn on.
        reason: Why the image was skipped.
        name: The image's path as users know it.
    """

    objects: Sequence[Mapping[str, Any]]
    state: DraftState
    base: str
    reason: str = ""
    name: str = ""


@dataclass(frozen=True)
class DraftPage:
    """The first of some drafts, and how many there are.

    Attributes:
        rows: The columns of `Draft` but its objects, the newest change first.
        counts: Author and state → number of drafts.
    """

    rows: Sequence[Row[Any]]
    counts: Mapping[tuple[str, str], int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class TakenOver:
    """What became of a person's drafts.

    Attributes:
        taken: SHA-256 of the images whose drafts are another's now.
        left: Those of which that other has a draft, too.
    """

    taken: Sequence[str]
    left: Sequence[str]


class DraftStore:
    """Reads and changes drafts; safe to share between threads and processes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, place: Place) -> Draft:
        """A draft. Raises NotFound."""
        with self.database.read() as session:
            found = _row(session, place)
        if found is None:
            raise NotFound(
                f"{place.author} has no draft of the image {place.content[:64]!r} in "
                f"'{place.dataset_id[:80]}'. It may have been committed or discarded."
            )
        return found

    def put(self, place: Place, drawn: Drawn, seen: str | None) -> Draft:
        """Store a draft.

        Args:
            place: Whose draft, of which image.
            drawn: What was drawn.
            seen: The version that the client replaces; None: there is none yet.

        Returns:
            The draft with its new version; if it is stored exactly so, with the one it has: the
            client sends it again because it did not get the answer. A client that goes on from a
            draft that its author committed meanwhile draws on what was committed: its base is that.

        Raises:
            PreconditionFailed: The newest version is another one; nothing was changed.
        """
        try:
            return self._put(place, drawn, seen)
        except IntegrityError:  # a database with several writers: another one was first
            return self._put(place, drawn, seen)

    def _put(self, place: Place, drawn: Drawn, seen: str | None) -> Draft:
        with self.database.write() as session:
            found = _row(session, place, lock=True)
            committed = session.get(CommittedDraft, (place.dataset_id, place.content, place.author))
            goes_on = committed is not None and found is None and seen == committed.version
            if committed is not None and (goes_on or _is_on(found, committed)):
                drawn = replace(drawn, base=committed.after(drawn.base))
            if found is not None and _holds(found, drawn):
                return found
            if not goes_on:
                _require(found, seen, place)
            if found is None:
                found = Draft(
                    dataset_id=place.dataset_id, content=place.content, author=place.author
                )
                session.add(found)
            found.version = secrets.token_hex(8)
            found.state, found.base, found.reason = drawn.state, drawn.base, drawn.reason
            found.objects, found.name = list(drawn.objects), drawn.name
            found.object_count = len(drawn.objects)
            found.updated_at = now()
        return found

    def discard(self, place: Place, seen: str) -> None:
        """Delete a draft whose newest version the client has seen; one that is gone is no error.

        Raises:
            PreconditionFailed: The newest version is another one; nothing was changed.
        """
        with self.database.write() as session:
            found = _row(session, place, lock=True)
            if found is not None:
                _require(found, seen, place)
                session.delete(found)

    def take_over(
        self, dataset_id: str, author: str, to: str, contents: Sequence[str] | None = None
    ) -> TakenOver:
        """Make drafts of one person those of another, who may then commit them.

        An image of which the other has a draft, too, is left as it is.

        Args:
            dataset_id: The dataset.
            author: Whose drafts they are.
            to: Whose they become.
            contents: SHA-256 of their images; None: all of the person's.

        Raises:
            NotFound: The person has none of them.
        """
        with self.database.write() as session:
            found = _contents_of(session, dataset_id, author, contents)
            own = frozenset(_contents_of(session, dataset_id, to, found, needed=False))
            taken = [content for content in found if content not in own]
            for content in taken:
                key = Draft.dataset_id == dataset_id, Draft.content == content
                values = {"author": to, "version": secrets.token_hex(8)}
                session.execute(update(Draft).where(*key, Draft.author == author).values(**values))
            _release(session, author, taken)
        return TakenOver(taken, [content for content in found if content in own])

    def discard_of(
        self, dataset_id: str, author: str, contents: Sequence[str] | None = None
    ) -> Sequence[str]:
        """Delete drafts of a person, as `take_over` finds them. Returns the SHA-256 of the images.

        Raises:
            NotFound: The person has none of them.
        """
        with self.database.write() as session:
            found = _contents_of(session, dataset_id, author, contents)
            of_person = Draft.dataset_id == dataset_id, Draft.author == author
            for some in blocks(found):
                session.execute(delete(Draft).where(*of_person, Draft.content.in_(some)))
            _release(session, author, found)
        return found

    def list(
        self,
        dataset_id: str,
        author: str | None = None,
        state: DraftState | None = None,
        content: str | None = None,
    ) -> list[Draft]:
        """The drafts of a dataset with their objects, the newest change first."""
        query = select(Draft).where(*_chosen(dataset_id, author, state, content))
        with self.database.read() as session:
            return list(session.scalars(query.order_by(*NEWEST)))

    def page(
        self,
        dataset_id: str,
        limit: int,
        author: str | None = None,
        state: DraftState | None = None,
        content: str | None = None,
    ) -> DraftPage:
        """The first drafts of a dataset without their objects, which are many megabytes."""
        chosen = _chosen(dataset_id, author, state, content)
        first = select(*WITHOUT_OBJECTS).where(*chosen).order_by(*NEWEST).limit(limit)
        count = select(Draft.author, Draft.state, func.count()).where(*chosen)
        with self.database.read() as session:
            rows = session.execute(first).all()
            found = session.execute(count.group_by(Draft.author, Draft.state)).all()
        return DraftPage(rows, {(author, state): number for author, state, number in found})

    def contents(self, dataset_id: str) -> frozenset[str]:
        """SHA-256 of the images of a dataset of which somebody has a draft."""
        query = select(Draft.content).where(Draft.dataset_id == dataset_id)
        with self.database.read() as session:
            return frozenset(session.scalars(query))

    # --- commits

    def answered(self, dataset_id: str, author: str, key: str) -> dict[str, Any] | None:
        """The answer of a commit that was made with this key; None if there was none."""
        with self.database.read() as session:
            found = session.get(DraftCommit, (dataset_id, author, key))
            return found.answer if found is not None else None

    def finish(
        self,
        committed: Sequence[Draft],
        bases: Mapping[str, str],
        key: str | None,
        answer: dict[str, Any],
    ) -> None:
        """Delete drafts that were committed, with their claims and skips, and keep the answer.

        A draft that was changed meanwhile stays; it is then one of what was committed.

        Args:
            committed: The drafts of one author, in the versions that were committed.
            bases: SHA-256 of an image → the base of what was committed.
            key: The client's name of the commit; None: the answer is not kept.
            answer: The answer.
        """
        with self.database.write() as session:
            for draft in committed:
                place = Place(draft.dataset_id, draft.content, draft.author)
                base = bases[draft.content]
                _note_committed(session, draft, base)
                found = _row(session, place, lock=True)
                if found is None:
                    continue
                if found.version == draft.version:
                    session.delete(found)
                    session.execute(delete(Skip).where(Skip.content == draft.content))
                    mine = Claim.content == draft.content, Claim.author == draft.author
                    session.execute(delete(Claim).where(*mine))
                elif found.base == draft.base:
                    found.base = base
            if key is not None and committed:
                first = committed[0]
                session.merge(
                    DraftCommit(
                        dataset_id=first.dataset_id,
                        author=first.author,
                        key=key,
                        answer=answer,
                        created_at=now(),
                    )
                )
            oldest = datetime.now(UTC) - timedelta(days=ANSWERS_DAYS)
            for table in (DraftCommit, CommittedDraft):
                old = table.created_at < oldest.isoformat(timespec="milliseconds")
                session.execute(delete(table).where(old))


def _chosen(
    dataset_id: str, author: str | None, state: DraftState | None, content: str | None
) -> list[ColumnElement[bool]]:
    """The conditions on drafts of a dataset; None: whichever."""
    asked = ((Draft.author, author), (Draft.state, state), (Draft.content, content))
    return [
        Draft.dataset_id == dataset_id,
        *(column == value for column, value in asked if value is not None),
    ]


def _contents_of(
    session: Session,
    dataset_id: str,
    author: str,
    contents: Sequence[str] | None,
    needed: bool = True,
) -> Sequence[str]:
    """SHA-256 of the images of which a person has drafts. Raises NotFound if they are `needed`."""
    query = select(Draft.content).where(*_chosen(dataset_id, author, None, None))
    wanted = None if contents is None else frozenset(contents)
    found = [
        content
        for content in session.scalars(query.order_by(Draft.content))
        if wanted is None or content in wanted
    ]
    if needed and not found:
        raise NotFound(
            f"{author[:LONGEST_AUTHOR]} has no such draft in '{dataset_id[:80]}'. It may have been "
            "committed or discarded: GET …/drafts lists what there is."
        )
    return found


def _release(session: Session, author: str, contents: Sequence[str]) -> None:
    """Delete a person's claims of images."""
    for some in blocks(contents):
        claims = Claim.content.in_(some), Claim.author == author
        session.execute(delete(Claim).where(*claims))


def _row(session: Session, place: Place, lock: bool = False) -> Draft | None:
    key = (place.dataset_id, place.content, place.author)
    return session.get(Draft, key, with_for_update=lock)


def _note_committed(session: Session, draft: Draft, base: str) -> None:
    """Remember what a committed draft has become."""
    before = session.get(CommittedDraft, (draft.dataset_id, draft.content, draft.author))
    is_next = before is not None and before.base == draft.base
    replaced = [*(before.replaced if before is not None and is_next else ()), draft.base]
    session.merge(
        CommittedDraft(
            dataset_id=draft.dataset_id,
            content=draft.content,
            author=draft.author,
            version=draft.version,
            base=base,
            replaced=replaced[-MAX_REPLACED:],
            created_at=now(),
        )
    )


def _is_on(found: Draft | None, committed: CommittedDraft) -> bool:
    """Whether a draft is drawn on what its author committed."""
    return found is not None and found.base == committed.base


def _holds(found: Draft, drawn: Drawn) -> bool:
    sent = (list(drawn.objects), drawn.state, drawn.base, drawn.reason)
    return sent == (found.objects, found.state, found.base, found.reason)


def _require(found: Draft | None, seen: str | None, place: Place) -> None:
    """Raises PreconditionFailed if the client has not seen the newest version."""
    if found is None:
        if seen is None:
            return
        raise PreconditionFailed(
            f"{place.author} has no draft of this image any more: it was committed or discarded. "
            "Send it with 'If-None-Match: *' to keep it as a new one."
        )
    if seen in (ANY, found.version):
        return
    raise PreconditionFailed(
        f"{found.author} has changed this draft at {found.updated_at}, in another window or on "
        "another machine. Nothing was overwritten. GET it, then send yours with its ETag in "
        "'If-Match', or drop yours.",
        current={
            "author": found.author,
            "updated_at": found.updated_at,
            "etag": f'"{found.version}"',
            "state": found.state,
        },
    )
