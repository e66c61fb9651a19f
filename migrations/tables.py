"""Metadata of every table of the project, for comparison with the migrations."""

from __future__ import annotations

from access.tables import AccessToken
from annotation.draft_tables import Draft
from annotation.prelabels import PrelabelRow
from annotation.tables import AnnotatedDataset
from database import Base, State
from dataset.shared.tables import SharedDataset
from evaluation.store import EvaluationRow
from jobs.epochs import EpochRow
from jobs.job import Job
from jobs.logs.shared_logs import LogPiece
from jobs.webhooks.deliveries import Delivery
from models_store.decision_log import Decision
from models_store.tables import PublishedModel
from monitoring.live_stats import LiveHour
from monitoring.shadow_store import ShadowRow

MODULES = (  # importing a module declares its tables; one table of each module
    State,
    AccessToken,
    PublishedModel,
    Decision,
    ShadowRow,
    AnnotatedDataset,
    SharedDataset,
    Draft,
    EvaluationRow,
    Job,
    EpochRow,
    LogPiece,
    Delivery,
    LiveHour,
    PrelabelRow,
)
METADATA = Base.metadata
