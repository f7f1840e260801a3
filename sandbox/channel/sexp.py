"""The one kind of S-expression that a guest may send: a wrapped session key, in canonical form.

`(7:enc-val(4:ecdh(1:s N:...)(1:e N:...)))` and its like, as GnuPG writes them (g10/pkglue.c,
libgcrypt manual, "Cryptographic Functions"); anything else is refused.
"""

from __future__ import annotations

_MOST_DIGITS = 4
# Algorithm to the names of its values.
_VALUES = {b"rsa": {b"a"}, b"elg": {b"a", b"b"}, b"ecdh": {b"s", b"e"}}


class SexpError(ValueError):
    """Not a wrapped session key."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def expect(self, byte: bytes) -> None:
        if self._data[self._at : self._at + 1] != byte:
            raise SexpError("unexpected byte")
        self._at += 1

    def next_is(self, byte: bytes) -> bool:
        return self._data[self._at : self._at + 1] == byte

    def atom(self) -> bytes:
        colon = self._data.find(b":", self._at, self._at + _MOST_DIGITS + 1)
        digits = self._data[self._at : colon] if colon > 0 else b""
        if not digits.isdigit() or digits.startswith(b"0"):
            raise SexpError("malformed length")
        end = colon + 1 + int(digits)
        if end > len(self._data):
            raise SexpError("too short")
        self._at = end
        return self._data[colon + 1 : end]

    def end(self) -> None:
        if self._at != len(self._data):
            raise SexpError("something follows")


def check_ciphertext(untrusted_data: bytes) -> bytes:
    """The same bytes, if they are one wrapped session key; else SexpError."""
    # gpg's canonical form ends with a NUL that it does not always leave away.
    data = untrusted_data.removesuffix(b"\0")
    reader = _Reader(data)
    reader.expect(b"(")
    if reader.atom() != b"enc-val":
        raise SexpError("not a wrapped key")
    reader.expect(b"(")
    wanted = _VALUES.get(reader.atom())
    if wanted is None:
        raise SexpError("unknown algorithm")
    seen: list[bytes] = []
    while reader.next_is(b"("):
        reader.expect(b"(")
        seen.append(reader.atom())
        reader.atom()
        reader.expect(b")")
    if sorted(seen) != sorted(wanted):
        raise SexpError("other values")
    reader.expect(b")")
    reader.expect(b")")
    reader.end()
    return data
