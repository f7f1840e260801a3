"""The command line for the guest's shell, and what the command line's side may import."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.channel.commands import command_line

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


def test_the_client_is_light_to_import() -> None:
    code = (
        "import sys; before = set(sys.modules); import sandbox.channel.client;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"asyncio", "asyncssh", "cryptography", "subprocess", "logging"}
