"""The guest's own Python modules, imported on this machine as the guest would import them."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

IMAGES = Path(__file__).parents[1] / "images"
LIBRARY = Path("root/usr/lib/mailbox")


def guest_module(client: str, name: str, settings: Mapping[str, str]) -> ModuleType:
    """A module of a client's image, new, and with this environment while it is imported.

    The guest's modules have plain names: none of them stays known under one.
    """
    path, environment = list(sys.path), dict(os.environ)
    sys.path[:0] = [str(IMAGES / client / LIBRARY), str(IMAGES / "base" / LIBRARY)]
    os.environ.update(settings)
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        for known in [name for name, module in sys.modules.items() if _of_guest(module)]:
            del sys.modules[known]


def _of_guest(module: ModuleType) -> bool:
    return IMAGES in Path(getattr(module, "__file__", None) or "/").parents
