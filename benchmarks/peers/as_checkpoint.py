"""Writes a model of the registry as an Ultralytics `.pt`, which the other servers load.

`python -m benchmarks.peers.as_checkpoint MODEL_ID FILE.pt`
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from models_store.store import locate
from models_store.weights import load_model


def main(model_id: str, path: Path) -> None:
    module, description = load_model(locate(model_id))
    module.names = dict(enumerate(description.names))  # type: ignore[assignment]
    module.task = description.task  # type: ignore[assignment]
    args = {"task": description.task, "imgsz": description.imgsz, "model": path.name}
    torch.save({"model": module, "train_args": args}, path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
