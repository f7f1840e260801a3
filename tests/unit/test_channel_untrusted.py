"""Events of a guest: only known forms pass, and nothing that passes can steer a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.channel.untrusted import (
    MAX_LINE,
    MAX_TEXT,
    GuestEvent,
    LineSplitter,
    clean_text,
    event_fields,
    parse_event,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
EVENT_LIKE = st.fixed_dictionaries(
    {"event": st.sampled_from(["phase", "warning", "error", "other"]) | JSON},
    optional={
        "name": st.sampled_from(["volume", "ready", "Bad Name"]) | JSON,
        "code": st.sampled_from(["volume-damaged", ""]) | JSON,
        "message": st.text() | JSON,
        "uptime": st.floats() | JSON,
        "more": JSON,
    },
)


def is_harmless(text: str) -> bool:
    return all(
        not unicodedata.category(character).startswith("C")
        and unicodedata.category(character) not in ("Zl", "Zp")
        for character in text
    )


@given(st.text(st.characters(codec=None), max_size=2000))
def test_clean_text_is_one_bounded_harmless_line(untrusted: str) -> None:
    cleaned = clean_text(untrusted)
    assert is_harmless(cleaned)
    assert len(cleaned) <= MAX_TEXT
    assert clean_text(cleaned) == cleaned


@pytest.mark.parametrize(
    ("untrusted", "shown"),
    [
        ("plain äöü 漢字", "plain äöü 漢字"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jgone", "gone"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("line\r\nnext\tword", "line next word"),
        ("abc\u202edcba\u2066", "abcdcba"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("a\u2028b", "a b"),
        ("back\b\b\bspace\x00", "backspace"),
        ("half \x1b", "half"),
        ("\ud800surrogate", "surrogate"),
    ],
)
def test_clean_text_examples(untrusted: str, shown: str) -> None:
    assert clean_text(untrusted) == shown


@given(EVENT_LIKE)
def test_what_passes_is_known_clean_and_stable(fields: dict[str, object]) -> None:
    event = parse_event(json.dumps(fields).encode())
    if event is None:
        return
    assert event.kind in ("phase", "warning", "error")
    assert is_harmless(event.name + event.code + event.message)
    assert len(event.message) <= MAX_TEXT
    assert parse_event(json.dumps(event_fields(event)).encode()) == event


@given(st.binary(max_size=500))
def test_any_line_is_an_event_or_nothing(line: bytes) -> None:
    assert parse_event(line) is None or b"event" in line


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b'{"event":"phase","name":"ready"}', GuestEvent("phase", name="ready")),
        (
            b'{"event":"phase","name":"home","uptime":12.34567}',
            GuestEvent("phase", name="home", uptime=12.346),
        ),
        (
            b'{"event":"error","code":"volume-damaged","message":"\\u001b[2Jno"}',
            GuestEvent("error", code="volume-damaged", message="no"),
        ),
        (b'{"event":"phase","name":"ready","uptime":-1}', None),
        (b'{"event":"phase","name":"ready","uptime":"1"}', None),
        (b'{"event":"phase","name":"ready","message":"x"}', None),
        (b'{"event":"phase","name":"ready\\n"}', None),
        (b'{"event":"phase","name":"Ready"}', None),
        (b'{"event":"error","code":"x"}', None),
        (b'{"event":"error","code":"x","message":1}', None),
        (b'{"event":"phase","event":"error","code":"x","message":"y"}', None),
        (b'{"event":{"a":1},"name":"ready"}', None),
        (b'{"event":"reboot","name":"ready"}', None),
        (b"not json", None),
        (b"[" * 60000, None),
        (b'{"event":"phase","name":"ready"}' + b" " * MAX_LINE, None),
    ],
)
def test_event_examples(line: bytes, event: GuestEvent | None) -> None:
    assert parse_event(line) == event


@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(1, 60))
def test_lines_are_cut_as_split_would_and_long_ones_dropped(
    pieces: list[bytes], limit: int
) -> None:
    splitter = LineSplitter(limit)
    found = [line for piece in pieces for line in splitter.feed(piece)]
    complete = b"".join(pieces).split(b"\n")[:-1]
    assert found == [line for line in complete if len(line) <= limit]


def test_one_endless_line_takes_bounded_memory_and_counts_once() -> None:
    splitter = LineSplitter(100)
    for _ in range(1000):
        assert list(splitter.feed(b"x" * 1000)) == []
    assert splitter.dropped == 1
    assert list(splitter.feed(b"\nnext\n")) == [b"next"]
