"""JSON from somebody who may be lying: no duplicate keys, no NaN, bounded depth and size."""

from __future__ import annotations

import json
from typing import Any, NoReturn


class StrictJsonError(ValueError):
    """The text is not the JSON object that was expected."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise StrictJsonError("a key appears twice")
    return result


def _no_constant(_name: str) -> NoReturn:
    raise StrictJsonError("not a finite number")


def parse_object(untrusted_text: bytes, limit: int) -> dict[str, Any]:
    """Parse one JSON object of at most `limit` bytes, or raise StrictJsonError."""
    if len(untrusted_text) > limit:
        raise StrictJsonError("too long")
    try:
        value = json.loads(
            untrusted_text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
        )
    except StrictJsonError:
        raise
    except (ValueError, RecursionError) as error:
        # The parser's own message quotes the text, so it stays here.
        raise StrictJsonError("not JSON") from error
    if not isinstance(value, dict):
        raise StrictJsonError("not an object")
    return value
