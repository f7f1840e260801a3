"""The command line for the guest's shell, and what the command line's side may import."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any, cast

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.channel import commands
from sandbox.channel.commands import command_line
from sandbox.channel.connect import Channel
from sandbox.channel.link import WriteGate
from sandbox.channel.peer import RefusedError

WORDS = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    min_size=1,
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(WORDS)
def test_a_real_shell_hands_every_word_on_unchanged(words: list[str]) -> None:
    show = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    line = command_line([sys.executable, "-S", "-c", show, *words], "root")
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.split(b"\0") == [word.encode() for word in words]
    assert done.stderr.strip().isdigit()


def test_the_mail_user_gets_no_more_than_the_mail_user_has() -> None:
    line = command_line(["id"], "mail-user")
    assert "setpriv --reuid=mail-user --regid=mail-user --init-groups --reset-env --" in line
    assert line.endswith(" sh id")
    assert "setpriv" not in command_line(["id"], "root")


class Refusing:
    """A connection that starts no session; it may end a moment after it has said so."""

    def __init__(self, *, ends: bool) -> None:
        self._ended = asyncio.Event()
        self._ends = ends

    async def create_process(self, *_: object, **__: object) -> None:
        if self._ends:
            asyncio.get_running_loop().call_soon(self._ended.set)
        raise asyncssh.ChannelOpenError(2, "Session request failed")

    async def wait_closed(self) -> None:
        await self._ended.wait()


@pytest.mark.parametrize(("ends", "code"), [(True, "channel-lost"), (False, "guest-error")])
def test_a_channel_that_ends_is_told_from_a_machine_that_refuses(
    ends: bool, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_ENDING_S", 0.01)

    async def start() -> None:
        await commands._start(Channel(cast(Any, Refusing(ends=ends)), cast(WriteGate, None)), "id")

    with pytest.raises(RefusedError) as refused:
        asyncio.run(start())
    assert refused.value.code == code


def test_the_client_is_light_to_import() -> None:
    code = (
        "import sys; before = set(sys.modules); import sandbox.channel.client;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"asyncio", "asyncssh", "cryptography", "subprocess", "logging"}
