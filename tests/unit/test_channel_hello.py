"""The hello: whatever a guest sends, the parser finds a key, waits, or refuses."""

from __future__ import annotations

import base64
import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.channel.hello import (
    MAX_LINE,
    MAX_NOISE,
    HelloError,
    ReadyParser,
    check_key,
    encode_hello,
    parse_ready,
)


def ed25519(raw: bytes = bytes(32), name: bytes = b"ssh-ed25519") -> str:
    blob = struct.pack(">I", len(name)) + name + struct.pack(">I", len(raw)) + raw
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


KEY = ed25519()
READY = b'MAILBOX-READY {"v":1,"host_key":"' + KEY.encode() + b'"}\n'


def feed_in_pieces(data: bytes, cuts: list[int]) -> tuple[str | None, int]:
    parser, used, start = ReadyParser(), 0, 0
    for stop in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        piece = data[start:stop]
        taken = parser.feed(piece)
        used += taken
        if taken < len(piece) or parser.host_key is not None:
            break
        start = stop
    return parser.host_key, used


def test_hello_is_one_line_after_a_line_end() -> None:
    line = encode_hello(KEY, 1790000000.5, "clientA")
    assert line.startswith(b"\nMAILBOX-HELLO {")
    assert line.endswith(b"}\n")
    assert json.loads(line.split(b" ", 1)[1]) == {
        "v": 1,
        "client_key": KEY,
        "time": 1790000000.5,
        "hostname": "clientA",
    }


@given(
    noise=st.binary(max_size=400).filter(lambda noise: b"MAILBOX-READY" not in noise),
    rest=st.binary(max_size=50),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
)
def test_ready_is_found_after_noise_and_the_rest_is_left_to_ssh(
    noise: bytes, rest: bytes, cuts: list[int]
) -> None:
    key, used = feed_in_pieces(noise + b"\n" + READY + rest, cuts)
    assert key == KEY
    assert used == len(noise) + 1 + len(READY)


def test_ready_is_found_behind_leftovers_on_its_own_line() -> None:
    parser = ReadyParser()
    parser.feed(b"\x00\xff" * MAX_LINE + READY)
    assert parser.host_key == KEY


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_any_stream_is_refused_or_understood(pieces: list[bytes]) -> None:
    parser = ReadyParser()
    for piece in pieces:
        try:
            assert 0 <= parser.feed(piece) <= len(piece)
        except HelloError:
            return


@given(st.text(max_size=200) | st.integers() | st.none() | st.binary().map(repr))
def test_only_canonical_keys_pass(untrusted: object) -> None:
    with contextlib.suppress(HelloError):
        assert check_key(untrusted).startswith("ssh-ed25519 ")


@given(st.binary(min_size=32, max_size=32))
def test_every_real_key_passes_and_loses_its_comment(raw: bytes) -> None:
    assert check_key(ed25519(raw)) == ed25519(raw)
    assert check_key(f"{ed25519(raw)} root@machine") == ed25519(raw)


@pytest.mark.parametrize(
    "noise", [b"x" * 4096, b"x" * 4095 + b"\n", b"\n" * 4096], ids=["one-line", "lines", "empty"]
)
def test_endless_noise_is_refused(noise: bytes) -> None:
    parser = ReadyParser()
    with pytest.raises(HelloError, match="noise"):
        for _ in range(MAX_NOISE // len(noise) + 1):
            parser.feed(noise)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"v":1}',
        b'{"v":2,"host_key":"%s"}' % KEY.encode(),
        b'{"v":true,"host_key":"%s"}' % KEY.encode(),
        b'{"v":1,"v":1,"host_key":"%s"}' % KEY.encode(),
        b'{"v":1,"host_key":"%s","more":1}' % KEY.encode(),
        b'{"v":1,"host_key":["%s"]}' % KEY.encode(),
        b'{"v":1,"host_key":"%s"}' % ed25519(bytes(31)).encode(),
        b'{"v":1,"host_key":"%s"}' % ed25519(bytes(33)).encode(),
        b'{"v":1,"host_key":"%s"}' % ed25519(name=b"ssh-rsa").encode(),
        b'{"v":1,"host_key":"ssh-rsa AAAA"}',
        b'{"v":1,"host_key":"ssh-ed25519 %s="}' % KEY.encode()[12:],
        b'{"v":1,"host_key":"* %s"}' % KEY.encode(),
        b'{"v":NaN,"host_key":"x"}',
        b"[" * 5000,
        b"9" * 5000,
    ],
)
def test_a_ready_line_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(HelloError):
        parse_ready(body)
