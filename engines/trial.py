"""Tries the engines of a CPU on one model, and stores which of them serves it.

Runs in a job's process: it imports NNCF, and with it torch, if int8 is tried.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.timing import OthersLoad, measure
from errors import Conflict
from evaluation.evaluator import evaluate
from evaluation.gate import MAIN, Gate, decide
from evaluation.target import EvaluationTarget
from files import sha256_of
from inference.cpu.engine_choice import (
    INT8_FILE,
    CpuEngine,
    EngineTrial,
    StoredChoice,
    choice_folder,
    machine,
    onnx_digest,
    read_choice,
    write_choice,
)
from inference.device import installed
from inference.engine import Engine, fp32_disagreement, load_exact_engine
from inference.prediction import Float
from models_store.description import ONNX_FILE, ModelDescription
from settings import Settings

if TYPE_CHECKING:
    from dataset.dataset import Dataset

HYSTERESIS = 0.1  # share of the time by which another engine must be faster than the present one
BOTH = {"segmentation": ("mAP50_95",), "pose": ("mAP50_95",)}  # beside the main metric
LABELS: dict[CpuEngine, str] = {
    "onnxruntime": "ONNX Runtime fp32",
    "openvino": "OpenVINO fp32",
    "int8": "OpenVINO int8",
}

Report = Callable[[float], None]


@dataclass(frozen=True)
class TrialData:
    """The data on which int8 is calibrated and evaluated.

    Attributes:
        dataset: The checked dataset.
        name: Its name in reports.
        split: The split to evaluate on.
        calibration: Images to calibrate with.
    """

    dataset: Dataset
    name: str
    split: str
    calibration: list[Path]


@dataclass
class Trial:
    """One trial: its parts in the order in which they run.

    Attributes:
        folder: The model's folder.
        model_id: `name:version`.
        settings: The settings.
        scratch: An existing folder for temporary files.
        data: For int8; or the reason why there is none.
        log: Receives sentences.
        progress: Receives the completed share, 0 to 1; may raise to cancel.
        idle: Returns once the machine is idle.
        load: The cores that others used since its last call.
    """

    folder: Path
    model_id: str
    settings: Settings
    scratch: Path
    data: TrialData | str
    log: Callable[[str], None]
    progress: Report
    idle: Callable[[], None]
    load: Callable[[], float] = field(default_factory=OthersLoad)

    def run(self) -> StoredChoice:
        """Try the engines and store the choice.

        Raises:
            VisionLoopError: The model cannot be loaded, or its ONNX file was made again meanwhile.
        """
        start = time.monotonic()
        reference, description = load_exact_engine(self.folder, self.settings)
        onnx = onnx_digest(self.folder)
        self.description = description
        engines: dict[CpuEngine, Engine] = {"onnxruntime": reference}
        trials: dict[CpuEngine, EngineTrial] = {
            "onnxruntime": EngineTrial(
                engine="onnxruntime", usable=True, note="The reference: it always may serve."
            )
        }
        trials["openvino"] = self._try_openvino(engines, reference)
        trials["int8"], files = self._try_int8(engines, reference)
        self.log("Measuring the times, whenever the machine is idle.")
        times = measure(engines, description, self.idle, self.load)
        for name in engines:
            trials[name].milliseconds = times.milliseconds[name]
            trials[name].relative_time = round(times.relative(name, "onnxruntime"), 3)
            shown = ", ".join(f"{key} {ms:.1f}" for key, ms in times.milliseconds[name].items())
            self.log(f"{LABELS[name]}: {shown} ms.")
        if onnx_digest(self.folder) != onnx:
            raise Conflict(
                f"The ONNX file of {self.model_id} was made again while its engines were tried, so "
                "nothing that was found out holds. A model that serves is tried again by itself; "
                f"others with POST /models/{self.model_id}/engines."
            )
        engine, reason = self._chosen(trials)
        data = self.data if isinstance(self.data, TrialData) else None
        choice = StoredChoice(
            engine=engine,
            reason=reason,
            engines=list(trials.values()),
            dataset=data.name if data else None,
            split=data.split if data else None,
            calibration_images=self._calibrated_on,
            machine=machine(self.settings),
            load=times.load,
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            onnx=onnx,
            files=files,
            seconds=round(time.monotonic() - start, 1),
        )
        self.log(reason)
        self._store(choice)
        return choice

    # -- the engines

    _calibrated_on = 0
    description: ModelDescription = field(init=False)

    def _try_openvino(self, engines: dict[CpuEngine, Engine], reference: Engine) -> EngineTrial:
        if not installed("openvino"):
            return _refused("openvino", "OpenVINO is not installed: pip install openvino.")
        from inference.cpu.openvino_engine import FP32, OpenVinoEngine

        try:
            engine = OpenVinoEngine(self.folder / ONNX_FILE, FP32, self.description, self.settings)
            reason = fp32_disagreement(engine, reference, self.description)
        except RuntimeError as error:  # OpenVINO's own: it does not know an operation
            return _refused("openvino", f"It cannot run this network: {_first_line(error)}")
        if reason is not None:
            return _refused("openvino", f"It does not agree with ONNX Runtime: {reason}.")
        engines["openvino"] = engine
        return EngineTrial(
            engine="openvino", usable=True, note="It agrees with ONNX Runtime in fp32."
        )

    def _try_int8(
        self, engines: dict[CpuEngine, Engine], reference: Engine
    ) -> tuple[EngineTrial, dict[str, str]]:
        """The trial of int8, and the digests of its files in `scratch` if it may serve."""
        if isinstance(self.data, str):
            return _refused("int8", self.data), {}
        for package in ("openvino", "nncf"):
            if not installed(package):
                note = f"{package} is not installed: pip install {package}."
                return _refused("int8", note), {}
        from engines.quantise import RANGES, calibration, network_input, quantised, write
        from inference.cpu.openvino_engine import INT8, OpenVinoEngine

        kind, most = reference.letterbox, self.settings.max_pixels
        images = calibration(self.data.calibration)
        self._calibrated_on = len(images)
        self.log(f"Calibrating int8 on {len(images)} images of {self.data.name}.")

        def read(image: Path) -> Float:
            self.progress(0.05)  # a sign of life
            return network_input(image, self.description, kind, most)

        path = self.scratch / INT8_FILE
        exact = self._evaluated(reference, (0.1, 0.3), "fp32")
        refused: list[EngineTrial] = []
        for attempt, ranges in enumerate(RANGES):
            try:
                graph = self.folder / ONNX_FILE
                write(quantised(graph, images, read, ranges), path)
                engine = OpenVinoEngine(path, INT8, self.description, self.settings)
            except RuntimeError as error:
                return _refused("int8", f"It cannot be made: {_first_line(error)}"), {}
            begin = 0.3 + 0.2 * attempt
            measured = self._evaluated(engine, (begin, begin + 0.2), "int8")
            trial = compared(exact, measured, self.settings)
            self.log(f"int8, ranges {ranges}: {trial.note}")
            if trial.usable:
                break
            refused.append(trial)
        else:
            return max(refused, key=lambda one: one.metrics[MAIN[self.description.type]]), {}
        engines["int8"] = engine
        files = (path, path.with_suffix(".bin"))
        return trial, {file.name: sha256_of(file) for file in files}

    def _evaluated(self, engine: Engine, share: tuple[float, float], what: str) -> dict[str, Any]:
        assert isinstance(self.data, TrialData)
        target = EvaluationTarget(
            self.folder, self.data.dataset, self.data.split, self.model_id, self.data.name
        )
        self.log(f"Evaluating {what} on {len(target.images)} images of {self.data.split}.")
        begin, end = share

        def progress(done: int, total: int) -> None:
            self.progress(begin + (end - begin) * done / max(1, total))

        with tempfile.TemporaryDirectory(dir=self.scratch) as output:
            found = evaluate(
                target,
                self.settings,
                output=Path(output),
                progress=progress,
                loaded=(engine, self.description),
            )
        return found.report

    # -- the choice

    def _chosen(self, trials: dict[CpuEngine, EngineTrial]) -> tuple[CpuEngine, str]:
        present = read_choice(self.folder, self.settings)
        return choose(trials, present.engine if present else "onnxruntime")

    def _store(self, choice: StoredChoice) -> None:
        target = choice_folder(self.folder, self.settings)
        target.mkdir(parents=True, exist_ok=True)
        for name in choice.files:  # a loaded network keeps the file that it read
            (self.scratch / name).replace(target / name)
        write_choice(self.folder, choice, self.settings)


def choose(trials: dict[CpuEngine, EngineTrial], present: CpuEngine) -> tuple[CpuEngine, str]:
    """The engine that serves, and a sentence on why.

    The fastest usable one; but not for a gain of less than a tenth over the present one. int8 is
    less exact, and takes over only for a gain of a tenth over both engines in fp32.
    """
    usable: dict[CpuEngine, float] = {
        name: trial.relative_time
        for name, trial in trials.items()
        if trial.usable and trial.relative_time is not None
    }
    if present not in usable:
        present = "onnxruntime"

    def gains(engine: CpuEngine, over: CpuEngine) -> bool:
        return usable[engine] <= (1 - HYSTERESIS) * usable[over]

    fastest = min(usable, key=usable.__getitem__)
    exact = min((name for name in usable if name != "int8"), key=usable.__getitem__)
    more = ""
    if fastest == "int8" != present and not gains("int8", exact):
        more = (
            f" {LABELS['int8']} takes {usable.pop('int8') / usable[exact]:.2f} of the time of "
            f"{LABELS[exact]}: too small a gain for what it may lose."
        )
        fastest = exact
    share = usable[fastest] / usable[present]
    if fastest == present:
        others = [time for name, time in usable.items() if name != present]
        second = f", the next takes {min(others) / usable[present]:.2f} of it" if others else ""
        where = " in fp32" if more else ""
        return (
            present,
            f"{LABELS[present]} serves: it takes the shortest time{where}{second}.{more}",
        )
    if not gains(fastest, present):
        return present, (
            f"{LABELS[present]} serves: the fastest, {LABELS[fastest]}, takes {share:.2f} of its "
            f"time, and a gain of {HYSTERESIS:.0%} is needed for a change.{more}"
        )
    return fastest, (
        f"{LABELS[fastest]} serves: it takes {share:.2f} of the time of {LABELS[present]}.{more}"
    )


def compared(exact: dict[str, Any], measured: dict[str, Any], settings: Settings) -> EngineTrial:
    """Whether int8 is exact enough to serve, from the reports on fp32 and on int8."""
    kind = exact["model"]["type"]
    metrics = dict.fromkeys((MAIN[kind], *BOTH.get(kind, ())))
    reasons: list[str] = []
    usable, rows = True, []
    for metric in metrics:
        gate = Gate(
            metric=metric,
            min_gain=-settings.int8_max_drop / 100,
            max_class_drop=settings.gate_max_class_drop,
            allow_unmeasured=True,
        )
        decision = decide(measured, exact, gate)
        usable = usable and decision.promote
        reasons += decision.reasons
        assert decision.comparison is not None
        rows += _drops(decision.comparison["classes"], metric)
    drop, name = max(rows, default=(None, None))
    if not rows:
        usable = False
        reasons = [f"{exact['dataset']['split']} has no object: nothing shows what int8 costs."]
    shown = [*metrics, "mAP50", "f1_score", "precision", "recall"]

    def figures(report: dict[str, Any]) -> dict[str, float]:
        return {key: report["figures"][key] for key in shown if key in report["figures"]}

    return EngineTrial(
        engine="int8",
        usable=usable,
        note=" ".join(dict.fromkeys(reasons)),
        metrics=figures(measured),
        fp32_metrics=figures(exact),
        worst_class=name,
        worst_class_drop=drop,
    )


def _drops(classes: list[dict[str, Any]], metric: str) -> list[tuple[float, str]]:
    found = []
    for row in classes:
        name = metric if metric in row["a"] else "f1_score"
        if row["instances"] and name in row["a"]:
            found.append((round(row["a"][name] - row["b"].get(name, 0.0), 6), row["name"]))
    return found


def _refused(engine: CpuEngine, note: str) -> EngineTrial:
    return EngineTrial(engine=engine, usable=False, note=note)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).strip()[:300]
