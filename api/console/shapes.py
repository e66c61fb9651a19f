"""Schemas of an image's objects as the console draws and sends them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from formats.annotations import FARTHEST

MOST_SHAPES = 10_000  # objects of one image
MOST_CORNERS = 20_000  # corners of one outline
LONGEST = 200  # characters of an id or a name

Place = Annotated[float, Field(ge=-FARTHEST, le=FARTHEST, allow_inf_nan=False)]
Corner = tuple[Place, Place]
Outline = Annotated[list[Corner], Field(max_length=MOST_CORNERS)]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ShapePart(_Closed):
    """A connected part of an object, without the first corner repeated at its end."""

    outline: Outline = Field(description="its corners, x and y in pixels")
    holes: list[Outline] = Field([], max_length=1000, description="outlines that are cut out of it")


class ShapeKeypoint(_Closed):
    name: str = Field(max_length=LONGEST, description="the keypoint's name")
    x: Place = Field(description="in pixels; of an absent keypoint it has no meaning")
    y: Place = Field(description="in pixels; of an absent keypoint it has no meaning")
    visibility: Literal[0, 1, 2] = Field(description="0: absent, 1: occluded, 2: visible")


class Shape(_Closed):
    """An object, in pixels of the image after its EXIF rotation, origin top left.

    Without a box, parts and keypoints it is a class of the whole image.
    """

    id: str = Field(max_length=LONGEST, description="tells it from the other objects of the image")
    label: str = Field(max_length=LONGEST, description="its class")
    box: tuple[Place, Place, Place, Place] | None = Field(
        None, description="x1, y1, x2, y2; null: the object is given by its parts or keypoints"
    )
    parts: list[ShapePart] = Field([], max_length=1000, description="the parts of a polygon")
    keypoints: list[ShapeKeypoint] = Field([], max_length=1000, description="its keypoints")
    source: Literal["model", "person"] = Field(
        "person", description="whether a model or a person has drawn it"
    )
    by: str = Field(
        "",
        max_length=LONGEST,
        description="the model's id, the person's name, `person` if it is not known, or "
        "`original` for what was uploaded",
    )
    score: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="the model's confidence, from 0 to 1; null: a person has drawn it"
    )
    band: Literal["accept", "review", "discard"] | None = Field(
        None,
        description="the confidence band of the score; what is sent here is not stored",
    )
