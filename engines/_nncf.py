"""NNCF without reports of its use, and quiet: `from engines._nncf import nncf`.

nncf 3.4.0 reports its calls to Google Analytics by way of `openvino_telemetry`, if that can be
imported; `inference.cpu._openvino` prevents it. It imports torch where that is installed.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import inference.cpu._openvino  # noqa: F401  (first: it disables the reports)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch, which it imports
    import nncf as _nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

nncf: Any = _nncf
nncf.set_log_level(logging.ERROR)
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # that there is no GPU

__all__ = ["RangeEstimatorParametersSet", "nncf"]
