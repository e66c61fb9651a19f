"""The fields of training requests, for `/train` and `/api/training/…`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    model_validator,
)

from api.middleware.errors import check
from api.schemas import MODEL_EXAMPLE, RequestFields
from models_store.names import suggest_name
from training.planning import hyperparameters
from training.planning.options import (
    CRITERIA,
    Criterion,
    DistillationOptions,
    IncrementalOptions,
    ReplayOptions,
)
from training.planning.plan import BATCH, EPOCHS, IMGSZ, PATIENCE, STAGE_RANGE
from training.planning.recipe import Mode, Promote, TrainingRequest

WEIGHT = "a number from 0 to 1000"
MOST_CLASSES = 10_000  # in a request

NewClasses = (
    Annotated[list[str], Field(max_length=MOST_CLASSES)] | Annotated[str, Field(max_length=100_000)]
)

_REPLAY = frozenset({"base_model_path", "old_data_path", "replay_ratio", "max_replay_samples"})
_DISTILLATION = frozenset(
    {
        "teacher_model_path", "distill_temperature", "distill_cls_weight", "distill_reg_weight",
        "distill_feat_weight", "distill_mask_weight", "enable_consistency", "consistency_weight",
        "pseudo_conf_threshold", "replay_distill_boost",
    }
)  # fmt: skip

# Fields that have an effect in some modes only.
FIELDS_OF_MODE: dict[str, frozenset[str]] = {
    "freeze_strategy": frozenset({"use_freeze_strategy", "min_epochs_per_stage"}),
    "incremental": _REPLAY | {"new_classes", "rehearsal"},
    "distillation": _REPLAY | _DISTILLATION,
}
# Fields that the form of the clients of `/api/training/…` also sends in every mode. They have no
# effect.
IGNORED_FIELDS = frozenset({"trainingType", "project_id"})


def _default(name: str) -> Any:
    """The default that planning has for a field."""
    return TrainingRequest.model_fields[name].default


def _within(allowed: range) -> dict[str, Any]:
    return {"ge": allowed[0], "le": allowed[-1]}


def _option(options: type[ReplayOptions], name: str, description: str) -> Any:
    """A field with the default and the bounds that planning's options have."""
    field = options.model_fields[name]
    bounds = {
        key: getattr(one, key)
        for one in field.metadata
        for key in ("ge", "gt", "le", "lt")
        if hasattr(one, key)
    }
    return Field(field.default, description=description, **bounds)


class Fields(RequestFields):
    """Request fields whose numbers must be finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class TrainingFields(Fields):
    """One flat object of fields for every mode; fields of other modes are not checked.

    The mode is the validation's context, else the field `mode` of a subclass.
    """

    passed_over = IGNORED_FIELDS
    inside: ClassVar = {"hyper": hyperparameters.NAMES}

    task: str | None = Field(
        None, max_length=40, description="detect, segment, classify or pose (default: detect)"
    )
    model_type: str = Field(
        _default("model"),
        max_length=400,
        description="a scale (n, s, m, l or x), a model id, or a network's name",
    )
    data_path: str | None = Field(
        None,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a dataset's id",
    )
    epochs: int = Field(
        _default("epochs"), **_within(EPOCHS), description="a whole number from 1 to 100000"
    )
    imgsz: int | None = Field(
        None,
        **_within(IMGSZ),
        description="a whole number of pixels from 32 to 4096 (default: 640)",
    )
    batch: int = Field(
        _default("batch"), **_within(BATCH), description="a whole number from 1 to 1024"
    )
    patience: int = Field(
        _default("patience"), **_within(PATIENCE), description="a whole number from 0 to 10000"
    )
    name: str | None = Field(None, max_length=200, description="a name for the new model")
    project: Any = Field(None, description="anything; it has no effect")
    resume_weights: str | None = Field(
        None,
        max_length=4096,
        description="weights to start from: a path, a model id, or the id of a job that failed",
    )
    use_freeze_strategy: bool = Field(_default("use_freeze_strategy"), description="true or false")
    min_epochs_per_stage: int = Field(
        _default("min_epochs_per_stage"),
        **_within(STAGE_RANGE),
        description="a whole number from 1",
    )
    base_model_path: str | None = Field(
        None, max_length=4096, description="a path or id of the model to extend"
    )
    new_classes: NewClasses = Field(
        [],
        description=f"at most {MOST_CLASSES:,} class names, as a list or as one text separated by "
        "commas",
    )
    old_data_path: str | None = Field(
        None,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a dataset's id",
    )
    replay_ratio: float = _option(ReplayOptions, "replay_ratio", "a number from 0 to 0.9")
    max_replay_samples: int = _option(ReplayOptions, "max_replay_samples", "a whole number from 0")
    rehearsal: Criterion = _option(
        IncrementalOptions,
        "rehearsal",
        f"a way to select old images, one of: {', '.join(CRITERIA)}",
    )
    teacher_model_path: str | None = Field(
        None, max_length=4096, description="a path or id of the teacher model"
    )
    distill_temperature: float = _option(DistillationOptions, "temperature", "a number above 0")
    distill_cls_weight: float = _option(DistillationOptions, "cls_weight", WEIGHT)
    distill_reg_weight: float = _option(DistillationOptions, "reg_weight", WEIGHT)
    distill_feat_weight: float = _option(DistillationOptions, "feat_weight", WEIGHT)
    distill_mask_weight: float = _option(DistillationOptions, "mask_weight", WEIGHT)
    enable_consistency: bool = _option(DistillationOptions, "enable_consistency", "true or false")
    consistency_weight: float = _option(DistillationOptions, "consistency_weight", WEIGHT)
    pseudo_conf_threshold: float = _option(
        DistillationOptions, "pseudo_conf_threshold", "a number from 0 to 1"
    )
    replay_distill_boost: float = _option(DistillationOptions, "replay_distill_boost", WEIGHT)
    promote: Promote = Field(
        _default("promote"),
        description=(
            "never, or auto: promote the new version if it passes the gate of the settings"
        ),
    )
    hyper: dict[str, Any] = Field(
        {}, description="an object with Ultralytics' hyperparameters", examples=[{"lr0": 0.01}]
    )

    @model_validator(mode="wrap")
    @classmethod
    def _drop_other_modes(
        cls, values: Any, build: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        """Pass over fields of other modes, with a note on those that do not have their default."""
        if not isinstance(values, dict):
            return build(values)
        mode = info.context or values.get("mode") or "regular"
        own = FIELDS_OF_MODE.get(mode, frozenset()) if isinstance(mode, str) else frozenset()
        others = set().union(*FIELDS_OF_MODE.values()) - own
        made = build({name: value for name, value in values.items() if name not in others})
        meant = [name for name in values if name in others and cls._is_meant(name, values[name])]
        if meant:
            have = "has" if len(meant) == 1 else "have"
            made._notes += [f"{', '.join(meant)} {have} no effect in mode {mode}."]
        return made

    @classmethod
    def _is_meant(cls, name: str, value: object) -> bool:
        """Whether a person gave a value: the old clients' form sends every field's default."""
        default, text = cls.model_fields[name].default, str(value).strip().lower()
        if text in ("", "none", str(default).lower()):
            return False
        try:
            return float(text) != float(default)
        except (TypeError, ValueError):
            return True

    def request(self, mode: Mode) -> TrainingRequest:
        """The training request with these fields."""
        name = suggest_name(self.name) if self.name else None
        notes = list(self.notes)
        if self.name and name != self.name.strip().lower():
            notes.append(
                f"The model is named {name!r}, not {self.name!r}: names have lower-case letters "
                "a-z, digits, '.', '_' and '-'."
            )
        return TrainingRequest(
            mode=mode,
            task=self.task,
            model=self.model_type,
            weights=self.resume_weights,
            data=self.data_path,
            name=name,
            epochs=self.epochs,
            imgsz=self.imgsz,
            batch=self.batch,
            patience=self.patience,
            use_freeze_strategy=self.use_freeze_strategy,
            min_epochs_per_stage=self.min_epochs_per_stage,
            base_model=self.base_model_path,
            promote=self.promote,
            hyper=self.hyper,
            notes=tuple(notes),
            incremental=self.incremental() if mode == "incremental" else None,
            distillation=self.distillation() if mode == "distillation" else None,
        )

    def incremental(self) -> IncrementalOptions:
        given = self.new_classes
        names = given.split(",") if isinstance(given, str) else given
        return IncrementalOptions(
            new_classes=tuple(name.strip() for name in names if name.strip()),
            rehearsal=self.rehearsal,
            **self._replay(),
        )

    def distillation(self) -> DistillationOptions:
        return DistillationOptions(
            teacher=self.teacher_model_path,
            temperature=self.distill_temperature,
            cls_weight=self.distill_cls_weight,
            reg_weight=self.distill_reg_weight,
            feat_weight=self.distill_feat_weight,
            mask_weight=self.distill_mask_weight,
            enable_consistency=self.enable_consistency,
            consistency_weight=self.consistency_weight,
            pseudo_conf_threshold=self.pseudo_conf_threshold,
            replay_distill_boost=self.replay_distill_boost,
            **self._replay(),
        )

    def _replay(self) -> dict[str, Any]:
        return {
            "old_data": self.old_data_path,
            "replay_ratio": self.replay_ratio,
            "max_replay_samples": self.max_replay_samples,
        }


class Train(Fields):
    """A body of `/train`: the model to start from, the data and further parameters."""

    inside: ClassVar = {
        "parameters": [*TrainingFields.model_fields, "mode"],
        **TrainingFields.inside,
    }

    model_id: str = Field(
        min_length=1,
        max_length=400,
        description=(
            "a model to start from: its id (name:version) or name, or a scale (n, s, m, l or x)"
        ),
        examples=[MODEL_EXAMPLE],
    )
    dataset_path: str = Field(
        min_length=1,
        max_length=4096,
        description="a data.yaml, a folder with one folder per class, or a dataset's id",
    )
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="a whole number from 1 (default: 50)"
    )
    batch_size: int | None = Field(
        None, ge=1, le=1024, description="a whole number from 1 to 1024 (default: 8)"
    )
    promote: Literal["never", "auto"] | None = Field(
        None,
        description="never (the default), or auto: promote the new version if it passes the gate",
    )
    parameters: dict[str, Any] = Field(
        {}, description="an object with further fields, as in /api/training/regular"
    )


class Parameters(TrainingFields):
    """`parameters` of `/train`: the fields of `/api/training/…`, and the mode; no others."""

    passed_over = frozenset()

    mode: Literal["regular", "incremental", "distillation", "freeze_strategy"] = Field(
        "regular", description="regular, incremental, distillation or freeze_strategy"
    )


def request_of(body: Train) -> TrainingRequest:
    """The training that a body of `/train` requests.

    Raises:
        ValidationFailed: A parameter is unknown or invalid.
    """
    wanted = request_with(body.parameters)
    named: dict[str, Any] = {"epochs": body.epochs, "batch": body.batch_size}
    named["promote"] = body.promote
    if wanted.mode == "incremental" and wanted.base_model is None:
        named["base_model"] = body.model_id  # `model_id` is the model that learns the new classes
    return wanted.model_copy(
        update={"model": body.model_id, "data": body.dataset_path}
        | {name: value for name, value in named.items() if value is not None}
    )


def request_with(parameters: dict[str, Any]) -> TrainingRequest:
    """The training that `parameters` request, without the other fields of `/train`.

    Raises:
        ValidationFailed: A parameter is unknown or invalid.
    """
    fields = check(Parameters, parameters)
    return fields.request(fields.mode)
