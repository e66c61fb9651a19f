"""What models said of pictures that people annotate, so that corrections can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import ForeignKey, Integer, String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from inference.annotations import Annotations
from models_store.database import Base, Database, now
from settings import Settings

LONGEST_NAME = 200


class AnnotatedImage(Base):
    """A picture, known by its content: the same file is the same row."""

    __tablename__ = "annotated_images"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    content: Mapped[str] = mapped_column(String(64), unique=True)  # SHA-256 of the file
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[str] = mapped_column(String(40), default=now)


class PrelabelRow(Base):
    """The newest answer per picture and tool."""

    __tablename__ = "prelabels"

    image_id: Mapped[int] = mapped_column(
        ForeignKey("annotated_images.id", ondelete="CASCADE"), primary_key=True
    )
    tool: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(130))
    confidence: Mapped[float | None]  # the threshold; None: the model's default
    annotations: Mapped[dict[str, Any]]  # Annotations as JSON
    created_at: Mapped[str] = mapped_column(String(40), default=now)


@dataclass(frozen=True)
class Prelabel:
    """An answer, and of which picture it is."""

    image_id: int
    content: str
    tool: str
    model_id: str
    confidence: float | None
    annotations: Annotations
    created_at: str


class PrelabelStore:
    """Keeps and finds pre-labels; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings)

    def add(
        self,
        image: bytes,
        found: Annotations,
        tool: str,
        model_id: str,
        confidence: float | None = None,
    ) -> int:
        """Keep an answer in place of the tool's older one. Returns the picture's id."""
        content = sha256(image).hexdigest()
        try:
            return self._add(content, found, tool, model_id, confidence)
        except IntegrityError:  # a database with several writers: another one was first
            return self._add(content, found, tool, model_id, confidence)

    def _add(
        self, content: str, found: Annotations, tool: str, model_id: str, confidence: float | None
    ) -> int:
        with self.database.write() as session:
            picture = _picture(session, content)
            if picture is None:
                picture = AnnotatedImage(
                    content=content,
                    name=found.image[-LONGEST_NAME:],
                    width=found.width,
                    height=found.height,
                )
                session.add(picture)
                session.flush()
            row = PrelabelRow(
                image_id=picture.id,
                tool=tool,
                model_id=model_id,
                confidence=confidence,
                annotations=found.to_json(),
                created_at=now(),
            )
            session.merge(row)
            return picture.id

    def of(self, content: str) -> list[Prelabel]:
        """What is known of a picture by the SHA-256 of its file, the newest first."""
        with self.database.read() as session:
            picture = _picture(session, content)
            return self._of(session, picture) if picture else []

    def get(self, image_id: int) -> list[Prelabel]:
        """What is known of a picture by its id, the newest first."""
        with self.database.read() as session:
            picture = session.get(AnnotatedImage, image_id)
            return self._of(session, picture) if picture else []

    def _of(self, session: Session, picture: AnnotatedImage) -> list[Prelabel]:
        rows = select(PrelabelRow).where(PrelabelRow.image_id == picture.id)
        return [
            Prelabel(
                picture.id,
                picture.content,
                row.tool,
                row.model_id,
                row.confidence,
                Annotations.from_json(row.annotations),
                row.created_at,
            )
            for row in session.scalars(rows.order_by(PrelabelRow.created_at.desc()))
        ]


def _picture(session: Session, content: str) -> AnnotatedImage | None:
    return session.scalar(select(AnnotatedImage).where(AnnotatedImage.content == content))
