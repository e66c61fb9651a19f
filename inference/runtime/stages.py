"""What comes before and after the network: decode and prepare an image, filter and draw."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import tracing
from errors import VisionLoopError, our_fault
from inference.cancellation import Halt
from inference.engine import DeviceEngine, DeviceImage, Engine, find_each
from inference.gpu.faults import end_if_sticky
from inference.images import DecodedImage, Pixels, decode, decode_at_least, read_plain_jpeg
from inference.jpeg import dct_scale
from inference.postprocess import Found, Thresholds, postprocess
from inference.prediction import InferenceItem, ItemResult, Prediction
from inference.preprocess import Letterbox, needed_size, prepare
from inference.render import draw
from inference.runtime.loaded_models import Model
from request_id import of_request
from settings import Settings


@dataclass(slots=True)
class Work:
    """An item between preprocessing and postprocessing, with its times in ms by stage.

    `image` is None if it was decoded on the device.
    """

    item: InferenceItem
    model: Model
    image: DecodedImage | None
    place: Letterbox
    prepared: Pixels | DeviceImage
    times: dict[str, float]

    @property
    def wanted(self) -> Thresholds:
        item = self.item
        return Thresholds.of(
            self.model.description, item.confidence, item.iou, item.max_det, item.classes
        )

    def timed(self, stage: str, start: float, batch: int = 1) -> None:
        """Note the end of a stage that began at `start`, and record its span."""
        note_time(self.times, self.item, stage, start, batch)


class Stages:
    """The stages of a prediction but the network's, each in the calling thread.

    Args:
        settings: How images are decoded, and how large they may be.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self, model: Model, item: InferenceItem) -> Work:
        """Decode an item's image and prepare it for the network."""
        start = time.perf_counter()
        work = self.work(model, item, self.decode(model, item))
        work.timed("preprocess", start)
        return work

    def decode(self, model: Model, item: InferenceItem) -> DecodedImage:
        """Decode an image as far as the network needs it, whether or not it is drawn later."""
        needed = needed_size(model.description, self._settings.decode, item.tiles)
        return decode_at_least(item.image, self._settings.max_pixels, needed)

    def work(self, model: Model, item: InferenceItem, image: DecodedImage) -> Work:
        """Prepare a decoded image for the network."""
        description = model.description
        place = Letterbox.of(description, model.engine.letterbox, image.width, image.height)
        prepared = prepare(image.pixels, description, place, image.scale)
        return Work(item, model, image, place, prepared, {})

    def decode_on_device(
        self, model: Model, engine: DeviceEngine, items: list[InferenceItem]
    ) -> dict[int, Work]:
        """The items that the device has decoded, by index; the host reads the others, or refuses
        them."""
        start = time.perf_counter()
        description, most = model.description, self._settings.max_pixels
        needed = needed_size(description, "fast")
        places: dict[int, Letterbox] = {}
        for index, item in enumerate(items):
            if item.draw or item.heavy:  # drawn on the host; heavy: in a thread of its own
                continue
            with contextlib.suppress(VisionLoopError):
                size = read_plain_jpeg(item.image, most)
                # the host decodes a far larger one at a DCT scale: faster, and antialiased
                if size is not None and (needed is None or dct_scale(*size, 1, needed(*size)) == 1):
                    places[index] = Letterbox.of(description, engine.letterbox, *size)
        if not places:
            return {}
        images = engine.decode([items[index].image for index in places], list(places.values()))
        works = {
            index: Work(items[index], model, None, place, image, {})
            for (index, place), image in zip(places.items(), images, strict=True)
            if image is not None
        }
        for work in works.values():
            work.timed("preprocess", start, len(works))
        return works

    def finish(self, work: Work, found: Found) -> ItemResult:
        """The result of an item, from what the network found in its image."""
        start = time.perf_counter()
        prediction = predicted(work, found)
        work.timed("postprocess", start)
        return self.result(work.item, work.image, prediction, work.times)

    def result(
        self,
        item: InferenceItem,
        image: DecodedImage | None,
        prediction: Prediction,
        times: dict[str, float],
    ) -> ItemResult:
        """The result of an item in the form that it asks for, with its drawn image."""
        if item.boxes_only:
            prediction = prediction.boxes_only()
        if item.editable:
            prediction = prediction.simplified()
        drawn = None
        if item.draw:
            if image is not None and image.scale == 1:
                pixels = image.pixels
            else:
                pixels = decode(item.image, self._settings.max_pixels)
            drawn = draw(pixels, prediction, item.drawn_as)
        return ItemResult(prediction=prediction, drawn=drawn, times=times)


def run_network(
    engine: Engine, works: Sequence[Work], wide: bool = False, halt: Halt | None = None
) -> list[Found]:
    """What the network finds in each image; `wide`: it may use all cores.

    Raises:
        Halted: `halt` was set.
    """
    return find_each(
        engine,
        [work.prepared for work in works],
        [work.place for work in works],
        [work.wanted for work in works],
        wide,
        halt,
    )


def predicted(work: Work, found: Found) -> Prediction:
    """The prediction in pixels of the image."""
    return postprocess(
        found,
        work.model.description,
        work.place,
        confidence=work.item.confidence,
        iou=work.item.iou,
        max_det=work.item.max_det,
        classes=work.item.classes,
    )


def note_time(
    times: dict[str, float], item: InferenceItem, stage: str, start: float, batch: int = 1
) -> None:
    """Note the time in ms of a stage that began at `start`, and record its span."""
    seconds = time.perf_counter() - start
    times[stage] = seconds * 1000
    if item.traceparent is not None:
        tracing.stage(stage, seconds, item.traceparent, {"visionloop.batch_size": batch})


def failed(error: Exception, item: InferenceItem) -> ItemResult:
    """The result of an item that failed; the log has the id of its request."""
    with of_request(item.request_id):
        return ItemResult(error=as_client_error(error))


def as_client_error(error: Exception) -> VisionLoopError:
    """The error in the form that clients may see, without internal details.

    Does not return if this process can never use its GPU again.
    """
    end_if_sticky(error)
    return error if isinstance(error, VisionLoopError) else our_fault(error, "A prediction")
