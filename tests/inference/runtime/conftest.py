"""Folders of small models by their tag."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from errors import ModelNotFound
from tests.support.running_models import KINDS


@pytest.fixture
def locate(model_folder: Callable[[str], Path]) -> Callable[[str], Path]:
    folders = {kind: model_folder(kind) for kind in KINDS}

    def find(tag: str) -> Path:
        if tag not in folders:
            raise ModelNotFound(f"No model '{tag}'.")
        return folders[tag]

    return find
