"""The search for what must be nowhere does find it, wherever it is."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import traces


@pytest.fixture
def canary() -> bytes:
    return b"canary-" + secrets.token_hex(12).encode()


@pytest.fixture
def told(canary: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has it in its environment."""
    with subprocess.Popen(["/bin/sleep", "60"], env={"A": canary.decode()}) as process:
        yield process
        process.kill()


def test_it_is_found_across_pieces_and_after_holes(tmp_path: Path, canary: bytes) -> None:
    (tmp_path / "pieces").write_bytes(bytes(traces.CHUNK - 5) + canary)
    with (tmp_path / "holes").open("wb") as file:
        file.seek(2**32)
        file.write(canary)
        file.truncate(2**33)
    for name in ("pieces", "holes"):
        assert traces.held(tmp_path / name, [b"absent-0", canary]) == {canary}
        assert traces.held(tmp_path / name, [b"absent-0"]) == set()


@pytest.mark.parametrize("before", [b"", b"x", b"xy"])
def test_it_is_found_within_base64(tmp_path: Path, canary: bytes, before: bytes) -> None:
    (tmp_path / "file").write_bytes(base64.b64encode(before + canary + b" and more"))
    assert traces.held(tmp_path / "file", [canary]) == {canary}


def test_it_is_found_in_wide_characters(tmp_path: Path, canary: bytes) -> None:
    (tmp_path / "file").write_bytes(canary.decode().encode("utf-16-le"))
    assert traces.held(tmp_path / "file", [canary]) == {canary}


def test_only_what_was_changed_is_searched_and_links_lead_nowhere(
    tmp_path: Path, canary: bytes
) -> None:
    begun = time.time()
    (tmp_path / "new").write_bytes(canary)
    (tmp_path / "passed").mkdir()
    (tmp_path / "passed" / "over").write_bytes(canary)
    (tmp_path / "link").symlink_to("new")
    passing = [tmp_path / "passed"]
    found = traces.changed(begun, top=tmp_path, passing=passing, own=True)
    assert set(found) == {tmp_path, tmp_path / "new", tmp_path / "link"}
    assert [path for path in found if traces.held(path, [canary])] == [tmp_path / "new"]
    assert traces.changed(begun + 3600, top=tmp_path) == []


def test_it_is_found_in_an_environment(canary: bytes, told: object) -> None:
    found = [(part, needle) for _, part, needle in traces.told([canary, b"absent-0"])]
    assert found == [("environ", canary)]


def test_it_is_found_in_memory(canary: bytes) -> None:
    program = "import sys, time; kept = sys.stdin.read(); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(canary)
        process.stdin.close()
        process.stdout.readline()
        found, searched = traces.in_memory([canary], passing=lambda words: b"gpg" in words)
        process.kill()
    if not searched:
        pytest.skip("the memory of other processes may not be read here")
    assert len(found) == 1 and found[0][1] == canary
