"""Every router of the REST API, in the order in which paths are matched and documented."""

from __future__ import annotations

from api import docs
from api.console import (
    annotation_queue,
    dataset_images,
    draft_owners,
    drafts,
    events,
    image_annotations,
    pages,
    queue_claims,
    session,
    stats,
    timeline,
)
from api.routes import (
    access,
    annotate,
    batch_annotation,
    comparison,
    corrections,
    datasets,
    evaluations,
    exports,
    fetch,
    imports,
    infer,
    jobs,
    live,
    local_files,
    metrics,
    models,
    promotion,
    revisions,
    shadow,
    train,
    training,
    webhooks,
)
from api.tools import cvat, label_studio, xanylabeling

CHANGING = (access, imports, fetch, shadow, models, exports, promotion, live)
MEASURING = (comparison, evaluations, metrics)
TOOLS = (annotate, label_studio, xanylabeling, cvat)
DATA = (annotation_queue, batch_annotation, corrections, revisions, datasets)
WATCHED = (events, stats, timeline)
CONSOLE = (
    session,
    image_annotations,
    dataset_images,
    drafts,
    draft_owners,
    queue_claims,
    *WATCHED,
)
ROUTERS = tuple(
    module.router
    for module in (
        infer,
        pages,
        docs,
        *CHANGING,
        *TOOLS,
        *MEASURING,
        *DATA,
        *CONSOLE,
        local_files,
        jobs,
        train,
        training,
        webhooks,
    )
)
