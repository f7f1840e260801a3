"""The user's settings as a file."""

from __future__ import annotations

from sandbox.model.config import Config, read_config
from sandbox.state import files
from sandbox.state.paths import Paths
from sandbox.state.records import parse_toml


def load_config(paths: Paths) -> Config:
    """The settings; without a file they are as usual.

    Raises:
        InvalidInputError: when the file is no TOML or has an unknown or wrong entry.
    """
    path = paths.config_file
    with files.readable_errors(path):
        content = path.read_bytes() if path.exists() else b""
    return read_config(parse_toml(content, f"The file {path}"), f"The file {path}")
