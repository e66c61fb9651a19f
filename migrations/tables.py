"""Every table of the project, in one place: what the migrations are compared with."""

from __future__ import annotations

from models_store.database import Base, PublishedModel, State
from models_store.decisions import Decision
from models_store.shadows import ShadowRow
from training.annotated_dataset import AnnotatedDataset
from training.evaluations import EvaluationRow
from training.jobs import Job
from training.live_quality import LiveHour
from training.prelabels import PrelabelRow

MODULES = (  # one table of each module that declares some
    State,
    PublishedModel,
    Decision,
    ShadowRow,
    AnnotatedDataset,
    EvaluationRow,
    Job,
    LiveHour,
    PrelabelRow,
)
METADATA = Base.metadata
