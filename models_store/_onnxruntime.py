"""ONNX Runtime with telemetry disabled: `from models_store._onnxruntime import onnxruntime`.

The wheels of 1.31.1 send facts about the machine, the model and its runs to Microsoft unless told
otherwise, on Linux too, and keep an identifier and a queue below ~/.cache/Microsoft (Privacy.md of
the wheel). The first report is sent before `disable_telemetry_events()` could be called.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded

import onnxruntime

__all__ = ["onnxruntime"]
