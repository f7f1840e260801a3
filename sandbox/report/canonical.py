"""One form for one document, so that its digest finds any change.

Canonical: UTF-8, keys sorted, no spaces, one line; no numbers with fractions (as RFC 8785, JCS,
for documents of texts, whole numbers, truth values, lists and tables).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_DIGEST = "digest"
_METHOD = "sha256:"


def canonical(document: Mapping[str, Any]) -> bytes:
    """The document's one form, with a line end.

    Raises:
        ValueError: when it holds what has more than one form.
    """
    _check(document)
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def _check(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError("a number with a fraction has more than one form")
    if isinstance(value, Mapping):
        for inner in value.values():
            _check(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)


def digest(document: Mapping[str, Any]) -> str:
    """The digest of a document, whatever digest it carries itself."""
    bare = {key: value for key, value in document.items() if key != _DIGEST}
    return _METHOD + hashlib.sha256(canonical(bare)).hexdigest()


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its digest inside."""
    return {**document, _DIGEST: digest(document)}


def read(content: bytes) -> dict[str, Any]:
    """A sealed document, checked.

    Raises:
        ValueError: with what is wrong: not JSON, not in its one form, or not what was sealed.
    """
    try:
        document = json.loads(content)
    except ValueError:
        raise ValueError("it is not a JSON document") from None
    if not isinstance(document, dict) or _DIGEST not in document:
        raise ValueError("it carries no digest")
    if document[_DIGEST] != digest(document):
        raise ValueError("its content is not what its digest was made of")
    if canonical(document) != content:
        raise ValueError("it is written in another form than the one it was sealed in")
    return document
