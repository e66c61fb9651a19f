"""The groups of routes, as Swagger UI and ReDoc show them: their names, meanings and order.

Client generators make a module of each group, so a new name changes what users import.
"""

from __future__ import annotations

RECOGNISE = "Recognise images"
MODELS = "Models"
ANNOTATE = "Annotate images"
TOOLS = "Annotation tools"
DATASETS = "Datasets"
TRAIN = "Training with /train"
TASKS = "Training with /api/training"
JOBS = "Jobs"
QUALITY = "Model quality"
WEBHOOKS = "Webhooks"
ACCESS = "Tokens and audit"
OPERATION = "Operation"
HEALTH = "Health"

GROUPS = {
    RECOGNISE: "What is in an image: boxes, outlines, keypoints or classes.",
    MODELS: "See which models there are, choose, import, fetch, promote, compare live, delete.",
    ANNOTATE: "Have a model annotate images for you: one, or a whole folder as a job.",
    DATASETS: "Upload and check images with annotations, correct them, take them away again.",
    TRAIN: "Start a training, see how far it is, stop it: the short form.",
    TASKS: "The same trainings by method: regular, freeze, incremental, distillation.",
    JOBS: "Everything that runs for longer: state, log, cancel.",
    WEBHOOKS: "Be told when a job ends: what was sent, and a test of the receivers.",
    QUALITY: "How good a model is: metrics, reports, comparisons, and live traffic.",
    TOOLS: "What Label Studio, CVAT and X-AnyLabeling call by themselves.",
    ACCESS: "Who may do what, and who did it.",
    OPERATION: "Watch the service: rates and latencies of the last minutes, and what changes.",
    HEALTH: "For load balancers and supervisors: whether it lives, whether it can serve.",
}
"""Group → one line for its readers; `/infer` first."""
