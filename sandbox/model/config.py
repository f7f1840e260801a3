"""The user's settings for all mailboxes, `config.toml`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sandbox.model.errors import InvalidInputError
from sandbox.model.schema import Reader


class AtSleep(StrEnum):
    """What becomes of open mailboxes before this computer sleeps."""

    SUSPEND = "suspend"
    CLOSE = "close"
    LEAVE = "leave"


@dataclass(frozen=True)
class Config:
    """The settings; what the file leaves out is as here."""

    at_sleep: AtSleep = AtSleep.SUSPEND
    warm_in_background: bool = True


def read_config(document: Mapping[str, Any], what: str) -> Config:
    """The settings of a document.

    Raises:
        InvalidInputError: with every problem and its place.
    """
    reader = Reader(document)
    sleep, images = reader.table("sleep"), reader.table("images")
    default = Config()
    config = Config(
        at_sleep=sleep.parsed("open_mailboxes", _at_sleep, default.at_sleep),
        warm_in_background=images.get("warm_in_background", bool, default.warm_in_background),
    )
    for table in (sleep, images, reader):
        table.finish()
    if reader.problems:
        raise InvalidInputError(what, reader.problems)
    return config


def _at_sleep(text: str) -> AtSleep:
    try:
        return AtSleep(text)
    except ValueError:
        raise ValueError(f"{text!r} is not suspend, close or leave") from None
