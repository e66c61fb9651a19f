"""`python -m tests.support.cpu_ranks JOB --parent PID`: a worker whose two GPUs are the CPU.

Ultralytics and our code do on the CPU what they do on two GPUs, with gloo instead of NCCL. Only
what Ultralytics writes for CUDA is replaced: the number of devices, the process group, and the
arguments of PyTorch's wrapper. The process that a worker starts for rank 1 runs this module too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import worker
from jobs.worker import exit_process
from training import job, rank
from training.yolo import ranks, trainer

GPUS = 2


def on_cpu() -> None:
    """Replace what Ultralytics does with GPUs; call it once this process has its rank."""
    from torch import distributed, nn
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils import RANK

    wrapped, begin = nn.parallel.DistributedDataParallel, BaseTrainer.__init__
    step = BaseTrainer.optimizer_step

    class OnCpu(wrapped):  # type: ignore[misc, valid-type]
        def __init__(self, module: Any, device_ids: Any = None, **more: Any) -> None:
            super().__init__(module, **more)

    def with_ranks(self: Any, *arguments: Any, **more: Any) -> None:
        begin(self, *arguments, **more)
        self.world_size = GPUS

    def group(self: Any) -> None:
        distributed.init_process_group("gloo", rank=RANK, world_size=GPUS)

    def counted(self: Any) -> None:
        """Note what the ranks have in common if they train together: the weights."""
        step(self)
        total = sum(float(value.detach().double().sum()) for value in self.model.parameters())
        with (self.run.job.folder / f"steps-of-rank-{RANK}").open("a") as file:
            file.write(f"{total!r}\n")

    assert RANK >= 0
    trainers: Any = BaseTrainer
    trainers.__init__, trainers._setup_ddp = with_ranks, group
    trainers.optimizer_step = counted
    parallel: Any = nn.parallel
    parallel.DistributedDataParallel = OnCpu


def after(what: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        made = what(*arguments)
        on_cpu()
        return made

    return both


def before(what: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any) -> Any:
        on_cpu()
        return what(*arguments)

    return both


if __name__ == "__main__":
    ranks.MODULE = "tests.support.cpu_ranks"
    trainer.visible_gpus = lambda: GPUS
    job.lead = after(job.lead)
    trainer.follow = before(trainer.follow)
    exit_process(rank.main() if "RANK" in os.environ else worker.main(worker.work))
