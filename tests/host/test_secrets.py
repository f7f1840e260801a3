"""Canaries: where secrets are while a mailbox is made and destroyed, and where they are not."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from demo.correspondent import Person
from demo.session import Session, find_bytes
from sandbox.host import agents, process
from sandbox.model.recovery import parse_code
from tests.host.conftest import need

PASSWORD = "canary-password-9d41c7"
KEY_PASSPHRASE = "canary-passphrase-77be02"
ADDRESS = "canary.anna@kunde.test"
NAME = "a"


@dataclass
class Traced:
    """What a traced command ran, wrote and said."""

    status: int
    output: bytes
    trace: str
    programs: set[str] = field(default_factory=set)


@dataclass
class World:
    session: Session
    onboarded: Traced
    volume_key: bytes
    ring_passphrase: bytes
    recovery_code: bytes

    @property
    def needles(self) -> list[bytes]:
        """Every secret, as text and as the bits it stands for."""
        random = [self.volume_key, self.ring_passphrase]
        bits = [base64.b64decode(each) for each in random]
        code = [self.recovery_code, self.recovery_code.replace(b"-", b"")]
        return [PASSWORD.encode(), KEY_PASSPHRASE.encode(), *random, *bits, *code]


def traced(
    session: Session, *arguments: str, input: bytes = b"", pass_fds: Sequence[int] = ()
) -> Traced:
    """Run `mailbox` under strace: every program with its arguments and whole environment."""
    log, said, ended = (session.runtime / name for name in ("trace", "said", "ended"))
    mailbox = str(Path(sys.executable).parent / "mailbox")
    watch = ["strace", "-I1", "-f", "-v", "-s", "100000", "-e", "trace=execve,openat"]
    # Whatever lives on, such as a warden, is traced, too: the end of the command is what counts.
    script = f'"$@"; echo $? >{ended}.new; mv {ended}.new {ended}'
    with (
        said.open("wb") as output,
        subprocess.Popen(
            [*watch, "-o", str(log), "sh", "-c", script, "sh", mailbox, *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=session.env,
            pass_fds=pass_fds,
        ) as tracer,
    ):
        assert tracer.stdin is not None
        tracer.stdin.write(input)
        tracer.stdin.close()
        while not ended.exists():
            assert tracer.poll() is None or ended.exists(), said.read_text(errors="replace")
            time.sleep(0.1)
        tracer.terminate()  # it lets go of them
    status, told = int(ended.read_text()), said.read_bytes()
    trace = log.read_text(errors="replace")
    for path in (log, said, ended):
        path.unlink()
    programs = {Path(each).name for each in re.findall(r'execve\("([^"]+)"', trace)}
    return Traced(status, told, trace, programs)


def written_outside(session: Session, traced: Traced) -> set[str]:
    """What a command opened for writing that is a file and not below the session's folders."""
    writing = r'openat\([^,]+, "([^"]+)", [^)\n]*O_(?:WRONLY|RDWR)[^)\n]*\) = \d'
    allowed = (*map(str, session.folders), "/dev/", "/proc/", "/sys/")
    opened = [path for path in re.findall(writing, traced.trace) if path[0] == "/"]
    outside = {path for path in opened if not path.startswith(allowed)}
    return {path for path in outside if not path.endswith(".pyc") and ".pyc." not in path}


def vault(session: Session, kind: str) -> bytes:
    """A secret as the keyring hands it out to its owner."""
    program = (
        "import secretstorage, sys\n"
        "bus = secretstorage.dbus_init()\n"
        "for item in secretstorage.get_default_collection(bus).get_all_items():\n"
        f"    if item.get_attributes().get('username', '').endswith('/{kind}'):\n"
        "        sys.stdout.buffer.write(item.get_secret())\n"
    )
    return session.run([sys.executable, "-c", program]).stdout


@pytest.fixture(scope="module")
def world(session: Session) -> Iterator[World]:
    need("strace", "qemu-img", "gpg")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode != 0:
        pytest.skip("strace may not trace here")
    session.env["TMPDIR"] = str(session.runtime)
    reader, writer = os.pipe()
    with Person("Anna", ADDRESS) as anna:
        (session.root / "anna.asc").write_text(protected(anna))
        with process.secret_pipe(f"{KEY_PASSPHRASE}\n".encode()) as descriptor:
            arguments = (
                *("onboard", NAME, "--offline", "--password-stdin", "--address", ADDRESS, "-v"),
                *("--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test", "--size", "64M"),
                *("--key-file", str(session.root / "anna.asc")),
                *("--key-passphrase-fd", str(descriptor), "--recovery-code-to", str(writer)),
            )
            password = f"{PASSWORD}\n".encode()
            onboarded = traced(session, *arguments, input=password, pass_fds=[descriptor, writer])
        assert onboarded.status == 0, onboarded.output.decode()
    os.close(writer)
    with os.fdopen(reader, "rb") as paper:
        code = paper.read().strip()
    keys = (vault(session, "volume-key"), vault(session, "openpgp-passphrase"))
    yield World(session, onboarded, *keys, code)


def protected(person: Person) -> str:
    """The person's secret key, protected by the canary passphrase."""
    home = ["gpg", "--homedir", str(person.home), "--batch", "--yes", "--no-tty"]
    options = [*home, "--pinentry-mode", "loopback", "--command-fd", "0", "--status-fd", "1"]
    options.remove("--batch")
    subprocess.run(
        [*options, "--passwd", person.fingerprint],
        input=f"{KEY_PASSPHRASE}\n" * 8,
        text=True,
        capture_output=True,
        check=True,
    )
    agents.end(person.home)
    export = ["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--armor"]
    return subprocess.run(
        [*home, *export, "--export-secret-keys", person.fingerprint],
        input=f"{KEY_PASSPHRASE}\n",
        text=True,
        capture_output=True,
        check=True,
    ).stdout


def test_the_keyring_has_them_all(world: World) -> None:
    assert vault(world.session, "mail-password") == PASSWORD.encode()
    for secret in (world.volume_key, world.ring_passphrase):
        assert len(base64.b64decode(secret, validate=True)) == 32
    assert world.volume_key != world.ring_passphrase
    assert parse_code(world.recovery_code.decode()).encode() == world.recovery_code


def test_no_program_was_given_a_secret(world: World) -> None:
    assert {"gpg", "gpg-agent"} <= world.onboarded.programs
    assert "MAILBOX_HOME=" in world.onboarded.trace  # the trace does hold environments
    for needle in world.needles:
        assert needle.decode(errors="replace") not in world.onboarded.trace


def test_no_secret_was_said(world: World) -> None:
    assert not any(needle in world.onboarded.output for needle in world.needles)


def test_no_secret_rests_in_a_file(world: World) -> None:
    assert find_bytes(world.session.folders, world.needles) == []


def test_what_is_looked_for_would_be_found(world: World) -> None:
    found = {path.suffix for path, _ in find_bytes(world.session.folders, [ADDRESS.encode()])}
    assert ".toml" in found


def test_no_file_was_written_outside_of_the_session(world: World) -> None:
    assert written_outside(world.session, world.onboarded) == set()


def test_no_agent_is_left(world: World) -> None:
    ring = str(world.session.home / "data" / "keys" / NAME)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        assert ring.encode() not in command


def test_files_are_for_their_owner_alone(world: World) -> None:
    for path in (world.session.home, *world.session.home.rglob("*")):
        if not path.is_symlink() and not path.is_socket():
            assert path.stat().st_mode & 0o077 == 0, path


def test_other_commands_do_not_say_them_either(world: World) -> None:
    for arguments in (["show", NAME], ["log", NAME], ["list"], ["status", NAME]):
        done = world.session.mailbox(*arguments, "--json", check=False)
        whole = done.stdout + done.stderr.encode()
        assert not any(needle in whole for needle in world.needles), arguments


def test_after_shredding_nothing_names_the_customer(world: World) -> None:
    """Last, for it destroys what the other tests look at."""
    uri = world.session.env | {"MAILBOX_LIBVIRT_URI": "test:///default"}
    world.session.env.update(uri)
    (world.session.root / "anna.asc").unlink()
    done = traced(world.session, "shred", NAME, "--yes")
    assert done.status == 0, done.output.decode()
    home = world.session.home
    for kind in ("volume-key", "mail-password", "openpgp-passphrase"):
        assert vault(world.session, kind) == b""
    assert find_bytes([home], [*world.needles, ADDRESS.encode(), b"kunde.test"]) == []
    for folder in ("config/profiles", "data/volumes", "data/keys", "run"):
        left = [path for path in (home / folder).rglob("*") if path.is_file()]
        assert left == [], folder
    assert not any(needle.decode(errors="replace") in done.trace for needle in world.needles)
    shutil.rmtree(home)
