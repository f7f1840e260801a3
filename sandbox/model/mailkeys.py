"""Keys that a mail carries: in its Autocrypt header (autocrypt.org, level 1) or attached to it.

A mail proves nothing about its sender. What is found here is an offer, to be compared by a person.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import Message
from email.utils import getaddresses

from sandbox.model.names import address_problem
from sandbox.model.packets import armored, read_keys

_FIELD = re.compile(rb"\A(?:From [^\n]*\n)?[!-9;-~]+:[ \t\r\n]")
_FROM = re.compile(rb"^From:", re.IGNORECASE | re.MULTILINE)
_MOST_PARTS = 200
_KEY_TYPES = ("application/pgp-keys", "text/plain", "application/octet-stream")
_ENDINGS = (".asc", ".gpg", ".pgp", ".key")


def is_mail(content: bytes) -> bool:
    """Whether a file is a mail with its headers, and not a file of keys."""
    head = content.lstrip()[:65536]
    return bool(_FIELD.match(head)) and bool(_FROM.search(head))


def keys_of_mail(untrusted: bytes) -> tuple[str, bytes]:
    """The sender's address, and all keys that the mail carries, armored.

    Raises:
        ValueError: with the reason, as the end of a sentence.
    """
    message = message_from_bytes(untrusted, policy=policy.compat32)
    sender = _sender(message)
    found = [*_autocrypt(message, sender), *_attached(message)]
    if not found:
        raise ValueError("carries no key: no Autocrypt header of its sender, no attached key")
    return sender, "\n".join(dict.fromkeys(found)).encode()


def _sender(message: Message) -> str:
    said = [_text(each) for each in message.get_all("From", [])]
    addresses = [address for _, address in getaddresses(said)]
    if len(said) != 1 or len(addresses) != 1 or address_problem(addresses[0]):
        raise ValueError("does not name exactly one sender")
    return addresses[0].lower()


def _text(value: object) -> str:
    try:
        return str(make_header(decode_header(str(value))))
    except (LookupError, ValueError):
        return str(value)


def _autocrypt(message: Message, sender: str) -> Iterator[str]:
    """The key of the header; several valid headers cancel each other, as the specification says."""
    values = (_attributes(str(each)) for each in message.get_all("Autocrypt", []))
    keys = [each["keydata"] for each in values if _is_valid(each, sender)]
    if len(keys) == 1:
        with suppress(ValueError):
            yield from _armored(base64.b64decode(re.sub(r"\s+", "", keys[0]), validate=True))


def _attributes(value: str) -> dict[str, str]:
    parts = (part.partition("=") for part in value.split(";"))
    return {name.strip().lower(): text.strip() for name, _, text in parts}


def _is_valid(attributes: dict[str, str], sender: str) -> bool:
    """An attribute that is not known makes the header invalid, unless it begins with `_`."""
    known = {"addr", "prefer-encrypt", "keydata"}
    critical = {name for name in attributes if name and not name.startswith("_")}
    return (
        critical <= known
        and attributes.get("addr", "").lower() == sender
        and bool(attributes.get("keydata"))
    )


def _attached(message: Message) -> Iterator[str]:
    for number, part in enumerate(message.walk()):
        if number > _MOST_PARTS:
            return
        named = (_text(part.get_filename() or "")).lower().endswith(_ENDINGS)
        if part.is_multipart() or not (named or part.get_content_type() in _KEY_TYPES):
            continue
        with suppress(ValueError, binascii.Error, LookupError):
            payload = part.get_payload(decode=True)
            yield from _armored(payload if isinstance(payload, bytes) else b"")


def _armored(data: bytes) -> Iterator[str]:
    """Public keys only: a secret one is nothing that a mail should carry."""
    for bundle in read_keys(data):
        if not bundle.secret:
            yield armored(bundle.data)
