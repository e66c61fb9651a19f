"""Small networks with random weights that do find something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import sure_models


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small exported model, by what it is: made once a session."""
    return sure_models.folders(tmp_path_factory.mktemp("models"))
