"""The Bento: its services and how they are wired."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import bentoml

# BentoML 1.4.39 removes the code's folder from the path once this file is imported
# (`_internal/service/loader.py`). This entry stays, and comes before the current folder. It must
# stand here: without it nothing of ours can be imported.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from api import native
from api.app import LateBoundApp, guarded, longest, with_middleware
from inference.device import device
from serving import bentoml_patches, lifecycle
from serving.model_runner import ModelRunner

settings = lifecycle.usable_settings()
lifecycle.install_patches(settings)
PROBES = dict.fromkeys(("/livez", "/readyz", "/healthz"), "GET")
door = LateBoundApp(native={"/predict": "POST", "/annotate": "POST", **PROBES})

SERVICE: dict[str, Any] = {
    "workers": 1,
    "http": {"host": "127.0.0.1", "port": 3000},
    "logging": {"access": {"enabled": False}},  # ours is in the middleware
}
RUNNER = SERVICE | {
    "resources": bentoml_patches.HALF_A_GPU if device(settings) == "cuda" else {"cpu": 1},
    "traffic": {"timeout": settings.request_timeout + 30},
    "runner_connection": bentoml_patches.SESSION_STAYS_OPEN,
}


@bentoml.service(**RUNNER)
class Detector(ModelRunner):
    """Interactive inference."""


@bentoml.service(**RUNNER)
class Annotator(ModelRunner):
    """Bulk annotation, apart from the Detector so that it never slows interactive requests."""


@bentoml.service(**SERVICE, traffic={"timeout": settings.request_timeout + 30})
class Trainer:
    """Runs the jobs of the table in worker processes. Its tasks wake it, and wait for a job."""

    @bentoml.on_startup
    async def open(self) -> None:
        # Late, as in the gateway below: every process of the service imports this file.
        from engines.due_trials import DueTrials
        from jobs.dispatcher import dispatcher_of
        from serving.shutdown import on_shutdown_signal
        from serving.telemetry import EPOCH, LEADER, WEBHOOKS

        self.dispatcher = dispatcher_of(
            settings,
            lambda mode, seconds: EPOCH.labels(mode).observe(seconds),
            lambda outcome: WEBHOOKS.labels(outcome).inc(),
            LEADER.set,
        )
        self.dispatcher.start()
        self.trials = DueTrials(settings, self.dispatcher.wake, leads=lambda: self.dispatcher.leads)
        self.trials.start()
        on_shutdown_signal(self.dispatcher.begin_shutdown)
        lifecycle.finish_startup(settings)

    @bentoml.on_shutdown
    async def close(self) -> None:
        await self.trials.stop()
        await self.dispatcher.stop()

    @bentoml.task
    async def train(self, job_id: str) -> str:
        """Wait for a training and return its final status."""
        return (await self.dispatcher.finished(job_id)).status

    @bentoml.task
    async def evaluate(self, job_id: str) -> str:
        """Wait for an evaluation and return its final status."""
        return (await self.dispatcher.finished(job_id)).status


@bentoml.asgi_app(door, path="/")
@bentoml.service(
    **SERVICE | {"workers": settings.gateway_workers},
    metrics={"enabled": False},
    runner_probe={"enabled": False},
    traffic={"timeout": longest(settings)},
)
class VisionLoop:
    """The gateway: every route that clients call."""

    detector = bentoml.depends(Detector)
    annotator = bentoml.depends(Annotator)
    trainer = bentoml.depends(Trainer)

    @bentoml.on_deployment
    @staticmethod
    def prepare() -> None:
        lifecycle.prepare(settings)

    @bentoml.on_startup
    async def open(self) -> None:
        from serving.gateway import Gateway
        from serving.gateways.fair_accept import accept_fairly
        from serving.gateways.peers import Peers
        from serving.idle import IdleTracker
        from serving.runner_client import Runner, stand_in_for_each_other
        from serving.trainer_client import TrainerLink

        peers = Peers.of(settings)
        idle = IdleTracker(peers)
        runners = {
            "detector": Runner("detector", self.detector, settings, idle, peers),
            "annotator": Runner("annotator", self.annotator, settings, idle, peers),
        }
        stand_in_for_each_other(*runners.values())
        accept_fairly(asyncio.get_running_loop(), peers)
        self.gateway = Gateway.open(settings, runners, TrainerLink(Trainer), peers)
        door.open(self.gateway)
        lifecycle.finish_startup(settings)

    @bentoml.on_shutdown
    async def close(self) -> None:
        await self.gateway.stop()

    async def __is_ready__(self) -> bool:
        await self.gateway.check_ready()
        return True

    @bentoml.api(input_spec=native.Predict)
    async def predict(self, **options: Any) -> dict[str, Any]:
        """The response of `/infer`, for BentoML's own clients."""
        return await native.predict(self.gateway, **options)

    @bentoml.api(input_spec=native.Annotate)
    async def annotate(self, **options: Any) -> dict[str, Any]:
        """The response of `/api/auto_annotate`, for BentoML's own clients."""
        return await native.annotate(self.gateway, **options)

    @bentoml.task(route="/tasks/train")
    async def train(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """A training as a BentoML task; `parameters` is a body of `/train`."""
        return await native.train(self.gateway, parameters)

    @bentoml.task(route="/tasks/evaluate")
    async def evaluate(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """An evaluation as a BentoML task: `model_id`, optionally `dataset_path`, `split`."""
        return await native.evaluate(self.gateway, parameters)


for runner in (Detector, Annotator, Trainer):  # each can be served on its own
    runner.add_asgi_middleware(guarded, settings=settings)  # type: ignore[union-attr]
VisionLoop.add_asgi_middleware(  # type: ignore[attr-defined]
    with_middleware, settings=settings, access=door.access
)
