"""Where the files lie that ship beside the code."""

from __future__ import annotations

from pathlib import Path


def data_root() -> Path:
    """The folder with `images/` and `profiles/`: in an installed wheel or in a source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent
