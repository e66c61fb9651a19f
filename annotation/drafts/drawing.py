"""Keeps what a person draws on an image."""

from __future__ import annotations

from dataclasses import dataclass, replace

from annotation.draft_tables import Draft
from annotation.drafts.checks import check_drawn
from annotation.drafts.form import from_shapes
from annotation.drafts.image_state import ImageReader
from annotation.drafts.store import DraftStore, Drawn, Place
from annotation.known_names import names_of
from annotation.queue.claims import ClaimStore


@dataclass(frozen=True)
class Drawer:
    """Stores drafts. Reads files: call it off the event loop.

    Attributes:
        reader: Reads the image that is drawn on.
        drafts: The store of drafts.
        claims: The store of claims: whoever draws on an image works on it.
    """

    reader: ImageReader
    drafts: DraftStore
    claims: ClaimStore

    def keep(self, place: Place, drawn: Drawn, seen: str | None) -> Draft:
        """Store a draft; what is accepted must be something that can be committed.

        Args:
            place: Whose draft, of which image.
            drawn: What was drawn.
            seen: The version that it replaces; None: there is none yet.

        Raises:
            DatasetNotFound, NotFound: There is no such dataset or image.
            ValidationFailed: It is accepted, and an object cannot be stored.
            PreconditionFailed: The newest version is another one.
        """
        state = self.reader.current(place.dataset_id, place.content)
        if drawn.state == "accepted":
            card = self.reader.datasets.get(place.dataset_id)
            names, _ = names_of(card, self.reader.known(place.dataset_id))
            check_drawn(from_shapes(drawn.objects), state, card["task"], names)
        kept = self.drafts.put(place, replace(drawn, name=state.name), seen)
        self.claims.renew(place.author, place.content)
        return kept
