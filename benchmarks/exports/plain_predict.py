"""Predictions of exported files by Ultralytics alone: run in an empty folder, without our code.

`python -P plain_predict.py IMAGE FILE …` prints a JSON list: task, names and objects of each file.
A FILE may end in `@IMGSZ`: Ultralytics takes 640 for a dynamic file, whatever its metadata says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    from ultralytics import YOLO  # as whoever has only this package

    image, *files = sys.argv[1:]
    answers = []
    for file in files:
        file, _, imgsz = file.partition("@")
        sized = {"imgsz": int(imgsz)} if imgsz else {}
        model: Any = YOLO(file)
        found = model.predict(image, conf=0.3, iou=0.7, verbose=False, device="cpu", **sized)[0]
        answer: dict[str, Any] = {"task": model.task, "names": list(found.names.values())}
        if found.probs is not None:
            answer["scores"] = found.probs.data.tolist()
        else:
            answer["boxes"] = found.boxes.xyxy.tolist()
            answer["scores"] = found.boxes.conf.tolist()
            answer["class_ids"] = found.boxes.cls.int().tolist()
        if found.keypoints is not None:
            answer["points"] = found.keypoints.xy.tolist()
        if found.masks is not None:
            answer["areas"] = found.masks.data.sum((1, 2)).tolist()
        answers.append(answer)
    ours = Path(__file__).resolve().parents[2]
    loaded = (getattr(module, "__file__", None) for module in sys.modules.values())
    own = [path for path in loaded if path and ours in Path(path).parents]
    assert [path for path in own if ".venv" not in path and path != __file__] == [], own
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
