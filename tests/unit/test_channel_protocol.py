"""The control socket: what goes in comes out, however it is cut; the rest is refused."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.channel.protocol import (
    MAX_COMMAND,
    MAX_DEADLINE_S,
    MAX_FRAME,
    Frame,
    FrameDecoder,
    Op,
    ProtocolError,
    Request,
    Stream,
    check_argv,
    encode_frame,
    encode_request,
    parse_request,
)

FRAMES = st.lists(st.builds(Frame, st.sampled_from(Stream), st.binary(max_size=300)), max_size=8)
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
REQUESTS = st.one_of(
    st.sampled_from([Request(Op.STATUS), Request(Op.STOP)]),
    st.builds(
        Request,
        st.just(Op.RUN),
        argv=st.lists(WORDS, min_size=1, max_size=5).map(tuple),
        user=st.sampled_from(["root", "mail-user"]),
    ),
    st.builds(
        Request,
        st.sampled_from([Op.WAIT, Op.PROVISION, Op.SHUTDOWN]),
        deadline_s=st.floats(0, MAX_DEADLINE_S),
    ),
)


@given(FRAMES, st.integers(1, 50))
def test_frames_survive_any_cutting(frames: list[Frame], size: int) -> None:
    data = b"".join(encode_frame(frame.stream, frame.payload) for frame in frames)
    decoder = FrameDecoder()
    found: list[Frame] = []
    for start in range(0, len(data), size):
        found += decoder.feed(data[start : start + size])
    assert found == frames


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    try:
        for frame in FrameDecoder().feed(data):
            assert len(frame.payload) <= len(data)
    except ProtocolError:
        pass


def test_a_frame_that_is_too_long_is_refused_by_its_header() -> None:
    with pytest.raises(ProtocolError):
        FrameDecoder().feed(struct.pack(">BI", Stream.STDIN, MAX_FRAME + 1))
    with pytest.raises(ProtocolError):
        encode_frame(Stream.STDIN, bytes(MAX_FRAME + 1))


@given(REQUESTS)
def test_requests_survive_the_wire(request: Request) -> None:
    assert parse_request(encode_request(request)) == request


@given(st.binary(max_size=200))
def test_any_line_is_a_request_or_refused(line: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        parse_request(line)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b'{"op":["run"]}',
        b'{"op":"erase"}',
        b'{"op":"status","argv":["x"]}',
        b'{"op":"run","argv":[],"user":"root"}',
        b'{"op":"run","argv":"ls","user":"root"}',
        b'{"op":"run","argv":["ls"]}',
        b'{"op":"run","argv":["ls"],"user":"daemon"}',
        b'{"op":"run","argv":["ls"],"user":["root"]}',
        b'{"op":"run","argv":["a\\u0000b"],"user":"root"}',
        b'{"op":"run","argv":["\\ud800"],"user":"root"}',
        b'{"op":"provision","deadline_s":-1}',
        b'{"op":"provision","deadline_s":true}',
        b'{"op":"provision","deadline_s":1e99}',
        b'{"op":"provision","deadline_s":NaN}',
        b'{"op":"stop","op":"stop"}',
    ],
)
def test_other_requests_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(line)


def test_a_command_longer_than_a_shell_takes_is_refused() -> None:
    with pytest.raises(ProtocolError):
        check_argv(["x" * (MAX_COMMAND + 1)])
