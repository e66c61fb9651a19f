"""A backup of a home with a little of everything, as a folder and as a zip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.furnished_home import Furnished, furnished
from upkeep.backup import backup


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Furnished]:
    home = furnished(tmp_path_factory.mktemp("source"))
    model = home.publish(promote=True)
    dataset = home.settings.paths.datasets / home.upload() / "data/data.yaml"
    home.job("running", dataset=str(dataset), base={"value": str(home.models.home / "x")})
    home.job("stopping")
    home.evaluate(model)
    yield home
    home.database.close()


@pytest.fixture
def folder(source: Furnished, tmp_path: Path) -> Path:
    backup(source.settings, tmp_path / "saved", store=source.models)
    return tmp_path / "saved"


@pytest.fixture
def packed(source: Furnished, tmp_path: Path) -> Path:
    backup(source.settings, tmp_path / "saved.zip", store=source.models)
    return tmp_path / "saved.zip"
