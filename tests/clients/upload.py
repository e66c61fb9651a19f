"""Uploads an image with the client that openapi-python-client writes; prints the answer.

python upload.py http://127.0.0.1:3000 photo.jpg
"""

import json
import sys
from io import BytesIO
from pathlib import Path

from visionloop_client import Client
from visionloop_client.api.jobs import get_job
from visionloop_client.api.models import active_model
from visionloop_client.api.recognise_images import infer
from visionloop_client.models import CurrentModel, ErrorAnswer, InferAnswer, InferForm
from visionloop_client.types import File

url, path = sys.argv[1:]
client = Client(base_url=url)
current = active_model.sync(client=client)
assert isinstance(current, CurrentModel), current

with Path(path).open("rb") as photo:
    form = InferForm(image=[File(photo, Path(path).name)], confidence=0.05)
    answer = infer.sync(client=client, body=form)
assert isinstance(answer, InferAnswer), answer
boxes = [one.bounding_box.to_dict() for one in answer.predictions if one.bounding_box]
several = infer.sync(
    client=client,
    body=InferForm(
        image=[
            File(BytesIO(Path(path).read_bytes()), "a.jpg"),
            File(BytesIO(b"no image"), "b.jpg"),
        ],
        classes=[one.label for one in answer.predictions],
        confidence=0.05,
    ),
)
assert isinstance(several, list), several
first, second = several
assert isinstance(first, InferAnswer), first
assert len(first.predictions) == len(answer.predictions)
assert isinstance(second, ErrorAnswer), second
assert second.code == "INVALID_IMAGE_FORMAT"
print(json.dumps({"model": current.active_model.id, "boxes": boxes}))

missing = get_job.sync(client=client, job_id="none")
assert isinstance(missing, ErrorAnswer), missing
assert missing.code == "JOB_NOT_FOUND"
