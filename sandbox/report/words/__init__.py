"""The words of certificates in each language; every language has all of them (tested)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.model.names import human_size
from sandbox.report.words import de, en

LANGUAGES = ("de", "en")
_WORDS: Mapping[str, Any] = {"de": de, "en": en}


def title(language: str) -> str:
    """The title of the document."""
    return str(_WORDS[language].TITLE)


def heading(section: str, language: str) -> str:
    """The heading of a section."""
    return str(_WORDS[language].SECTIONS.get(section, section))


def label(entry: str, language: str) -> str:
    """The name of a field; `backup:NAME` and `keyring:ITEM` have their name in it."""
    labels = _WORDS[language].LABELS
    kind, colon, name = entry.partition(":")
    if entry in labels or not colon:
        return str(labels.get(entry, entry))
    return str(labels.get(kind, kind)).format(name=name)


def source(kind: str, language: str) -> str:
    """Whether a field is an observation or a statement, in a word."""
    return str(_WORDS[language].SOURCES.get(kind, kind))


def says(entry: Mapping[str, Any], language: str) -> str:
    """What a field says."""
    if "text" in entry:
        return str(entry["text"])
    words = _WORDS[language]
    values = {key: _value(key, value, words) for key, value in dict(entry["values"]).items()}
    said = str(words.SAYS.get(entry["code"], entry["code"]))
    return said.format_map(_Known(values)) + (
        f" ({values['where']})" if values.get("where") and "{where}" not in said else ""
    )


def legend(language: str) -> str:
    """What the marks mean."""
    return str(_WORDS[language].LEGEND)


def lines_to_sign(language: str) -> tuple[str, ...]:
    """What the person fills in who accepts the destruction."""
    return tuple(_WORDS[language].VALIDATION)


def digest_line(language: str) -> str:
    """The name of the digest at the end."""
    return str(_WORDS[language].DIGEST)


def _value(key: str, value: object, words: Any) -> str:
    if key in ("size", "allocated") and isinstance(value, int):
        return human_size(value)
    if key == "kind":
        return str(words.SAYS.get(str(value), value))
    return str(value)


class _Known(dict[str, str]):
    """A field that is missing is shown as such, and stops no report."""

    def __missing__(self, key: str) -> str:
        return "?"
