"""A certificate as text for a terminal, and as the parts that a page is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.report import words

_WIDTH = 100
_LABEL = 34


@dataclass(frozen=True)
class Row:
    """One field as it is read."""

    label: str
    says: str
    source: str


@dataclass(frozen=True)
class Part:
    """One section as it is read; `to_sign` are lines that a person fills in."""

    heading: str
    rows: tuple[Row, ...]
    to_sign: tuple[str, ...] = ()


def parts(document: Mapping[str, Any], language: str) -> Iterator[Part]:
    """The sections of a certificate in a language."""
    for section in document["sections"]:
        entries = section["entries"]
        rows = tuple(_row(entry, language) for entry in entries)
        to_sign = words.lines_to_sign(language) if section["id"] == "validation" else ()
        if not rows and not to_sign:
            rows = (Row("-", words.says({"code": "no-entries", "values": {}}, language), ""),)
        yield Part(words.heading(section["id"], language), rows, to_sign)


def _row(entry: Mapping[str, Any], language: str) -> Row:
    return Row(
        words.label(entry["id"], language),
        words.says(entry, language),
        words.source(entry["source"], language),
    )


def as_text(document: Mapping[str, Any], language: str) -> str:
    """The certificate as plain text."""
    title = words.title(language)
    lines = [title, "=" * len(title), "", *textwrap.wrap(words.legend(language), _WIDTH)]
    for part in parts(document, language):
        lines += ["", part.heading, "-" * len(part.heading)]
        for row in part.rows:
            lines += _text_row(row)
        for first, *blank in ([line] for line in part.to_sign):
            lines += [first if len(first) > 20 else f"{first}: {'_' * 50}", *blank, ""]
    return "\n".join([*lines, "", f"{words.digest_line(language)}: {document['digest']}"]) + "\n"


def _text_row(row: Row) -> list[str]:
    mark = f" [{row.source}]" if row.source else ""
    wrapped = textwrap.wrap(row.says + mark, _WIDTH - _LABEL) or [mark]
    first = (
        f"{row.label:<{_LABEL - 1}} " if len(row.label) < _LABEL else f"{row.label}\n{'':{_LABEL}}"
    )
    return [first + wrapped[0], *(f"{'':{_LABEL}}{line}" for line in wrapped[1:])]
