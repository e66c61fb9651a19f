"""OpenVINO with usage reports disabled: `from inference.cpu._openvino import openvino`.

openvino 2026.4.1 imports `openvino_telemetry`, which reports conversions to Google Analytics unless
the user has opted out; without that package it uses a stub of its own.
"""

from __future__ import annotations

import sys
from typing import Any

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an import of it fails

import openvino as _openvino  # noqa: E402

openvino: Any = _openvino

__all__ = ["openvino"]
