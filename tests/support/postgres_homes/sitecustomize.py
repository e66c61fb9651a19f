"""Python runs this at its start if its folder is on PYTHONPATH: see the package."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


class _Patched:
    """A loader that patches `settings` once it is loaded."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        found = importlib.util.spec_from_file_location(
            "postgres_homes", Path(__file__).with_name("__init__.py")
        )
        assert found is not None
        assert found.loader is not None
        homes = importlib.util.module_from_spec(found)
        found.loader.exec_module(homes)
        homes.patch(module.Settings)


class _Finder:
    """Finds our module `settings`, and nothing else."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "settings":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader)  # type: ignore[assignment]
        return spec


if "TEST_POSTGRES" in os.environ:
    sys.meta_path.insert(0, _Finder)
