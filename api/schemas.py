"""Pydantic models of requests and responses, for validation and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

import errors as kinds
from api.request_text import PLAIN_TEXT, UNKNOWN, plain_text
from field_names import Unknown, UnknownField, notes_on
from inference.cpu.engine_choice import EngineChoice

Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

MOST_NAMES = 1000  # of an object inside a body

MOST_CLASS_TEXT = 64 * 1024  # characters of all names in `classes`
MOST_IMAGES = 32  # images of one request of `/infer`

MODEL_EXAMPLE = "traffic_signs_yolov8n:k3xq7w2a"


class ErrorAnswer(BaseModel):
    """The form of every error."""

    error: str = Field(examples=["Not Found"])
    code: str = Field(examples=["MODEL_NOT_FOUND"])
    message: str = Field(examples=["No model 'x'. Known: a, b."])
    detail: str = Field(description="the same text as `message`")
    request_id: str = Field(
        description="the request's id, as in `X-Request-ID` and in the server's log",
        examples=["5f1c9a0e7d3b2846"],
    )


class Missing(BaseModel):
    """One thing that the service lacks to be ready."""

    what: Literal["model", "database", "disk", "runner"] = Field(description="its kind")
    name: str = Field(description="of the model, the runner or the folder; may be empty")
    reason: str
    remedy: str = Field(description="what to do")


class NotReadyAnswer(ErrorAnswer):
    """The error of `/readyz`: what is missing."""

    missing: list[Missing] = Field(description="what the service lacks, with the remedies")


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI object `responses` of error statuses, with the error codes of each status."""
    listed: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        codes = [kind.code for kind in vars(kinds).values() if _has_status(kind, status)]
        listed[status] = {"model": ErrorAnswer, "description": ", ".join(sorted(set(codes)))}
    return listed


def _has_status(kind: Any, status: int) -> bool:
    return isinstance(kind, type) and getattr(kind, "status", None) == status


BODIES: dict[str, type[BaseModel]] = {}
"""Models of the bodies that handlers read themselves, by their class names."""


def form_body(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI object `requestBody` of a form that the handler reads itself."""
    return _body("multipart/form-data", model)


def json_request_body(model: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """The OpenAPI object `requestBody` of JSON that the handler reads with `json_body`."""
    return _body("application/json", model, required)


def _body(kind: str, model: type[BaseModel], required: bool = True) -> dict[str, Any]:
    content = {kind: {"schema": form_schema(model)}}
    return {"requestBody": {"required": required, "content": content}}


def form_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Add a model to `BODIES`. Returns a placeholder that `api.openapi` replaces by its schema."""
    assert BODIES.setdefault(model.__name__, model) is model, "two bodies of one name"
    return {"title": model.__name__}


class _Wire(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class Source(_Wire):
    kind: str = Field(description="`starter`, `import`, `fetch` or `train`")
    job_id: str | None = None
    parent: str | None = None


class Model(_Wire):
    """A version of a model."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    id: str = Field(examples=[MODEL_EXAMPLE])
    name: str
    description: str
    type: Literal["detection", "segmentation", "pose", "classification"]
    family: Literal["yolo", "mobilenet"]
    version: str
    classes: list[str]
    active: bool
    promoted: bool
    created_at: datetime
    size_bytes: int
    metrics: dict[str, Any] | None
    source: dict[str, Any]
    engine: str | None = Field(
        None, description="the inference backend that runs the model; null: it is not loaded"
    )
    letterbox: Literal["rect", "square"] | None = Field(
        None,
        description="how the loaded engine pads images: to the smallest rectangle of multiples of "
        "the stride, or to a square, if a version before exported it and it is not made again yet; "
        "null: it is not loaded, or a classifier",
    )


class ModelDetails(Model):
    """A version of a model, and which engine serves it on this machine's CPU."""

    engines: EngineChoice | None = Field(
        None,
        description="the engines that were tried here, and the choice; null: they were not, or "
        "for another CPU or other versions of the programs",
    )


class EnginesTried(_Wire):
    job_id: str = Field(description="the job that tries the engines")
    model_id: str
    status: Literal["queued", "running"]


class ModelList(_Wire):
    models: list[Model]


class CurrentModel(_Wire):
    active_model: Model


class Activated(CurrentModel):
    message: str


class RequestFields(BaseModel):
    """Fields that clients send; empty strings and nulls mean "not given".

    An unknown field is checked by its name, whatever its value. An alias of a known field, or a
    near misspelling of one, is refused with the name that was meant. `unknown` says how other
    unknown fields are treated.

    Attributes:
        unknown: `refuse`: any other is an error; `note`: it is ignored and listed in `notes`;
            `pass`: nothing is checked, for routes whose clients are other tools, which send many
            fields that have no meaning here.
        files: Names of the form fields that are files, which handlers read themselves.
        passed_over: Unknown names that clients may send: they have no effect.
        inside: Names that are known inside an object, by the object's name.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    unknown: ClassVar[Unknown] = "refuse"
    files: ClassVar[tuple[str, ...]] = ()
    passed_over: ClassVar[frozenset[str]] = frozenset()
    inside: ClassVar[Mapping[str, Collection[str]]] = {}

    _notes: list[str] = PrivateAttr(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """A sentence for each field that was ignored."""
        return self._notes

    @classmethod
    def known(cls) -> list[str]:
        """The names of the known fields."""
        aliases = [field.alias or name for name, field in cls.model_fields.items()]
        return [*aliases, *cls.files]

    @model_validator(mode="wrap")
    @classmethod
    def _know_all(cls, values: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(values, dict):
            return build(values)
        names = [name for name in values if name not in cls.passed_over]
        for name, value in values.items():
            if not plain_text(name) or not plain_text(value):
                message = f"{name[:60]!r} is not plain Unicode: {PLAIN_TEXT}"
                raise PydanticCustomError(UNKNOWN, "{message}", {"message": message})
            if isinstance(value, dict) and len(value) > MOST_NAMES:
                message = f"{name[:60]!r} has {len(value):,} names; {MOST_NAMES:,} are allowed."
                raise PydanticCustomError(UNKNOWN, "{message}", {"message": message})
        try:
            notes = notes_on(names, cls.known(), cls.unknown, cls.inside)
        except UnknownField as error:
            raise PydanticCustomError(UNKNOWN, "{message}", {"message": str(error)}) from None
        made = build({name: value for name, value in values.items() if value not in ("", None)})
        made._notes = notes
        return made

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_booleans_as_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` and `false` as numbers; pydantic would convert them to 1 and 0."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and not {bool, Any} & {wanted, *get_args(wanted)}:
            raise ValueError("true and false are not numbers")
        return value


class ModelChoice(RequestFields):
    model_id: str = Field(
        min_length=1,
        max_length=200,
        description="a model's id (name:version) or name",
        examples=[MODEL_EXAMPLE],
    )


class InferOptions(RequestFields):
    """Options of a prediction."""

    unknown = "note"

    model_id: str = Field(
        "",
        max_length=200,
        description="a model's id (name:version) or name; empty: the active model",
    )
    draw_boxes: bool = Field(False, description="true or false")
    confidence: Unit | None = Field(None, description="a number from 0 to 1")
    iou: Unit | None = Field(None, description="a number from 0 to 1")
    max_det: int | None = Field(
        None, ge=1, le=1000, description="a whole number from 1 to 1000", examples=[100]
    )
    classes: list[int | str] | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description=(
            "names or ids of the wanted classes, repeated or separated by commas; others are left "
            "out, and `max_det` does not count them"
        ),
        examples=[["stop", "yield"]],
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _names_or_ids(cls, value: Any) -> Any:
        """A single name or id as a list; refuses anything else."""
        listed = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) or not isinstance(one, (int, str)) for one in listed):
            raise ValueError("neither names nor ids")
        if sum(len(one) for one in listed if isinstance(one, str)) > MOST_CLASS_TEXT:
            raise ValueError("too long")
        return listed


ImageUrl = Field(
    None,
    description="an image's URL in place of the file, if the operator allows it",
    max_length=8192,
)


class FromUrl(RequestFields):
    """A form with an image, or its URL."""

    image: str | None = Field(
        None, description="The image file", json_schema_extra={"format": "binary"}
    )
    image_url: str | None = ImageUrl


class FromFilesOrUrl(RequestFields):
    """A form with images, or the URL of one."""

    image: list[str] | None = Field(
        None,
        max_length=MOST_IMAGES,
        description=f"The image file; repeated for several images, at most {MOST_IMAGES}",
        json_schema_extra={"items": {"type": "string", "format": "binary"}},
    )
    image_url: str | None = ImageUrl


class InferForm(InferOptions, FromFilesOrUrl):
    """The form of `/infer`."""


class NativeForm(InferOptions):
    image: str = Field(description="The image file", json_schema_extra={"format": "binary"})


class InferBase64(InferOptions):
    image_base64: str | None = Field(
        None,
        description="base64 text, with or without 'data:image/…;base64,' before it",
        examples=["data:image/png;base64,iVBORw0KGgo…"],
    )


class ImportOptions(RequestFields):
    """What a model file does not state, or states wrongly."""

    files = ("file",)

    name: str | None = Field(
        None, max_length=63, description="a model name of at most 63 characters"
    )
    family: Literal["yolo", "mobilenet"] | None = Field(None, description="yolo or mobilenet")
    names: str | None = Field(
        None, max_length=60_000, description="class names, separated by commas"
    )
    imgsz: int | None = Field(None, ge=32, le=4096, description="a whole number from 32 to 4096")
    description: str = Field("", max_length=2000, description="text of at most 2000 characters")
    promote: bool = Field(False, description="true or false")

    @property
    def class_names(self) -> list[str] | None:
        return [name.strip() for name in self.names.split(",")] if self.names else None


class ImportForm(ImportOptions):
    file: str = Field(
        description="The weights: .pt, .pth, or the .zip of an archive",
        json_schema_extra={"format": "binary"},
    )


class Size(_Wire):
    width: int
    height: int


class Box(_Wire):
    x1: float
    y1: float
    x2: float
    y2: float


class Keypoint(_Wire):
    name: str
    x: float
    y: float
    confidence: float


class Seen(_Wire):
    """One object, or one class of a classification. Pixels, after EXIF rotation."""

    label: str
    class_id: int
    confidence: float
    bounding_box: Box | None = None
    polygon: list[tuple[float, float]] | None = None
    keypoints: list[Keypoint] | None = None


class InferAnswer(_Wire):
    model_id: str
    model_version: str
    image: Size
    predictions: list[Seen]
    inference_time: float = Field(description="time in the neural network, in milliseconds")
    image_result: str | None = Field(
        None,
        description="the image with the boxes drawn in, as a data URI; only with `draw_boxes`",
    )
    notes: list[str] = Field(
        [], description="sentences about fields that had no effect; absent if there are none"
    )


def picture_answer(*content: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI object `responses` of an answer that may be the drawn image itself.

    `content` are the content types of drawn images.
    """
    return {
        200: {
            "description": (
                "The predictions; or the image with the predictions drawn in, if `Accept` gives "
                "its type a higher `q` than JSON and `*/*`"
            ),
            "headers": {
                name: {"description": text, "schema": {"type": kind}}
                for name, text, kind in PICTURE_HEADERS
            },
            "content": {kind: {} for kind in content},
        }
    }


PICTURE_HEADERS = (
    ("X-Model-Id", "with an image: the model's id", "string"),
    ("X-Model-Version", "with an image: the model's version", "string"),
    ("X-Prediction-Count", "with an image: the number of predictions", "integer"),
    (
        "X-Notes",
        "with an image: sentences about fields that had no effect, as a JSON list",
        "string",
    ),
)
"""Headers of a drawn image: name, meaning, type."""


class ModelMetrics(_Wire):
    model_id: str
    model_name: str
    metrics: dict[str, Any] = Field(description="empty if the model was never evaluated")


class AllMetrics(_Wire):
    models_metrics: list[ModelMetrics]
