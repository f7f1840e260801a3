"""Web Key Directory: where a key lies for those who look it up by its address.

Source: draft-koch-openpgp-webkey-service, section 3.1 (key discovery).
"""

from __future__ import annotations

import base64
import hashlib
from urllib.parse import quote

_ROOT = ".well-known/openpgpkey"
_FROM_BASE32 = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "ybndrfg8ejkmcpqxot1uwisza345h769")


def hashed(local_part: str) -> str:
    """The name of a key's file: SHA-1 of the lower-case local part, in z-base-32 (RFC 6189)."""
    # Only ASCII letters are mapped to lower case, as the draft says; bytes.lower() does just that.
    digest = hashlib.sha1(local_part.encode().lower(), usedforsecurity=False).digest()
    return base64.b32encode(digest).decode().translate(_FROM_BASE32)


def directory(address: str, key: bytes) -> dict[str, bytes]:
    """The files to publish, by relative path: both for `openpgpkey.DOMAIN` and for `DOMAIN`."""
    local_part, _, domain = address.rpartition("@")
    roots = (_ROOT, f"{_ROOT}/{domain.lower()}")
    keys = {f"{root}/hu/{hashed(local_part)}": key for root in roots}
    # An empty policy file is what tells a client that the directory is there.
    return keys | {f"{root}/policy": b"" for root in roots}


def advanced(address: str) -> tuple[str, str]:
    """The host that a key is asked of first, and the URL; that host's absence allows `direct`."""
    local_part, _, domain = address.rpartition("@")
    host = f"openpgpkey.{_ascii(domain)}"
    return host, f"https://{host}/{_ROOT}/{_ascii(domain)}/hu/{_file(local_part)}"


def direct(address: str) -> str:
    """The URL below the domain itself."""
    local_part, _, domain = address.rpartition("@")
    return f"https://{_ascii(domain)}/{_ROOT}/hu/{_file(local_part)}"


def _file(local_part: str) -> str:
    # The local part as it was written comes along, for services that do not hash.
    return f"{hashed(local_part)}?l={quote(local_part, safe='')}"


def _ascii(domain: str) -> str:
    return domain.lower().encode("idna").decode("ascii")
