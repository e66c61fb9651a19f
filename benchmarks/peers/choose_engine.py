"""Has the engines of a stored model tried on this machine, as the server does while it is idle.

`python -m benchmarks.peers.choose_engine MODEL_ID [DATA.yaml]` prints the choice as JSON. Without a
dataset, int8 is calibrated and evaluated on drawn traffic signs.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from dataset.inspection import check
from engines.trial import Trial, TrialData
from inference.engine_files import load_description
from models_store.store import locate
from settings import get_settings
from synthetic.evaluation_sets import NAME, calibration_images, drawn_set


def main(model_id: str, data: Path | None) -> None:
    settings, folder = get_settings(), locate(model_id)
    task = load_description(folder).task
    with tempfile.TemporaryDirectory() as scratch:
        if data is None:
            path = drawn_set(task, settings, _ignore)
            dataset = check(path, task, [path.parent, path])
            images, name = calibration_images(task, Path(scratch) / "calibration", _ignore), NAME
        else:
            dataset = check(data, task, [data.parent])
            images, name = list(dataset.scan().splits["train"]), data.parent.name
        choice = Trial(
            folder=folder,
            model_id=model_id,
            settings=settings,
            scratch=Path(scratch),
            data=TrialData(dataset, name, "val", images),
            log=lambda line: print(line, file=sys.stderr, flush=True),
            progress=lambda share: None,
            idle=lambda: None,
        ).run()
    print(json.dumps(choice.to_json()))


def _ignore(done: int, total: int) -> None: ...


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None)
