"""The folders of the Bento model store."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors import ValidationFailed
from models_store.store import ModelStore, bento_home


def test_a_home_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", "~there-is-no-such-user/bentoml")
    with pytest.raises(ValidationFailed, match="BENTOML_HOME: The home folder of ~there-is-no"):
        bento_home()


def test_names_of_other_programs(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert store.names_of_others() == set()

    def version(name: str, manifest: str | None) -> None:
        folder = store.models / name
        folder = folder / f"v{len(list(folder.glob('*')))}"
        folder.mkdir(parents=True)
        if manifest is not None:
            (folder / "model.yaml").write_text(manifest)

    version("iris", "metadata: {}")
    version("iris", "metadata:")
    version("signs", "metadata: {visionloop: '{}'}")
    version("mixed", "metadata: {}")
    version("mixed", "metadata: {visionloop: '{}'}")
    version("torn", None)
    version("damaged", "a: [")
    (store.models / "empty").mkdir()
    assert store.names_of_others() == {"iris"}
