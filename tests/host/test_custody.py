"""A real GnuPG without secret keys works through the filter, and gets nothing else out of it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.correspondent import Person, public_home
from sandbox.host import agents
from sandbox.host.custody.agent import Agent
from sandbox.host.custody.holder import Holder, Holding
from sandbox.host.custody.keygrips import read_grips
from sandbox.model import custody as custody_model
from sandbox.model.custody import Custody, Grants, Rule, Where
from tests.host.conftest import need

NO_PASSPHRASE = ("--pinentry-mode", "loopback", "--passphrase", "")
Notes = list[tuple[str, str, str]]


def agent_socket(home: Path) -> Path:
    subprocess.run(["gpgconf", "--homedir", home, "--launch", "gpg-agent"], check=True)
    ask = ["gpgconf", "--homedir", home, "--list-dirs", "agent-extra-socket"]
    return Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())


class Guest:
    """A GnuPG home with public keys only, and a filter in front of somebody's agent."""

    def __init__(self, owner: Person, custody: Custody, answer: bool | None = None) -> None:
        self.owner = owner
        self.folder = Path(tempfile.mkdtemp(prefix="gst-"))
        self.socket = self.folder / "filter.sock"
        self.notes: Notes = []
        self.asked: list[str] = []
        self.answer = answer
        self.agent_home = owner.home
        self.grants = Grants(custody)
        self.home = self.folder / "gnupg"
        public_home(self.home, owner.public_key(), self.socket)

    def gpg(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--status-fd", "2"]
        return subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, check=False, timeout=60
        )

    def talk(self, lines: str) -> list[str]:
        """What the filter answers to these lines and BYE."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.socket))
            sock.sendall(f"{lines}\nBYE\n".encode())
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        return answer.decode(errors="replace").splitlines()[1:]

    @contextmanager
    def served(self) -> Iterator[Guest]:
        loop = asyncio.new_event_loop()
        grips = read_grips(self.owner.home, self.owner.fingerprint)

        async def connect() -> Agent:
            path = await asyncio.to_thread(agent_socket, self.agent_home)
            return await Agent.connect(path)

        async def ask(operation: str) -> bool | None:
            self.asked.append(operation)
            return self.answer

        holding = Holding(
            "kunde", self.owner.fingerprint, "2.2.40", grips.sign, grips.decrypt, connect, ask,
            lambda *note: self.notes.append(note),
        )  # fmt: skip
        server = loop.run_until_complete(
            asyncio.start_unix_server(Holder(holding, self.grants).serve, str(self.socket))
        )
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_end(server), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(scope="module")
def anna() -> Iterator[Person]:
    need("gpg", "gpgconf")
    with Person("Anna Kundin", "anna@kunde.test") as person:
        yield person


@pytest.fixture(scope="module")
def bert() -> Iterator[Person]:
    with Person("Bert Partner", "bert@partner.test") as person:
        yield person


@pytest.fixture
def guest(anna: Person) -> Iterator[Guest]:
    with Guest(anna, Custody(Where.HOST)).served() as made:
        yield made


def encrypted(anna: Person, text: bytes) -> bytes:
    made = anna.gpg.encrypt(text, [anna.fingerprint], sign=anna.fingerprint, always_trust=True)
    assert made.ok, made.stderr
    return bytes(made.data)


def test_a_guest_with_public_keys_only_decrypts_and_signs(guest: Guest, anna: Person) -> None:
    read = guest.gpg("--decrypt", stdin=encrypted(anna, b"Hallo"))
    assert read.stdout == b"Hallo", read.stderr
    assert b"GOODSIG" in read.stderr
    for options in (["--sign"], ["--armor", "--textmode", "--detach-sign"], ["--clearsign"]):
        made = guest.gpg(*options, "-u", anna.fingerprint, stdin=b"von mir\n")
        assert b"SIG_CREATED" in made.stderr, made.stderr
    assert anna.gpg.verify(made.stdout).valid
    assert [note[::2] for note in guest.notes] == [("decrypt", "done")] + [("sign", "done")] * 3
    assert not list((guest.home / "private-keys-v1.d").glob("*.key"))


def test_a_subkey_that_signs_keeps_the_primary_key_out_of_reach(bert: Person) -> None:
    bert.gpg_command(
        *NO_PASSPHRASE,
        *("--quick-add-key", bert.fingerprint, "ed25519", "sign", "1y"),
    )
    listing = bert.gpg_command("--with-colons", "--with-keygrip", "--list-keys", bert.fingerprint)
    grips = [line.split(":")[9] for line in listing.splitlines() if line.startswith("grp")]
    with Guest(bert, Custody(Where.HOST)).served() as guest:
        made = guest.gpg("--detach-sign", "-u", bert.fingerprint, stdin=b"x")
        assert b"SIG_CREATED" in made.stderr, made.stderr
        answers = guest.talk(f"SIGKEY {grips[0]}\nSETHASH 8 {'00' * 32}\nPKSIGN")
    assert answers[0].startswith("ERR 67108881 ")  # no such key for this guest
    assert guest.notes[0] == ("sign", grips[2], "done")


THEFT = [
    "KEYWRAP_KEY --export",
    "EXPORT_KEY {own}",
    "EXPORT_KEY --openpgp {own}",
    "GENKEY --no-protection",
    "DELETE_KEY --force {own}",
    "PRESET_PASSPHRASE {own} -1 00",
    "PASSWD {own}",
    "KEYTOCARD --force {own} 0 1 0",
    "IMPORT_KEY",
    "SIGKEY {other}",
    "SETKEY {other}",
    "KEYINFO {other}",
    "KEYINFO --list",
    "HAVEKEY {other}",
    "READKEY {own}",
    "GET_PASSPHRASE X X X X",
    "KILLAGENT",
    "OPTION pinentry-mode=loopback",
]


def test_nothing_else_comes_out(guest: Guest, anna: Person) -> None:
    anna.gpg_command(*NO_PASSPHRASE, "--quick-gen-key", "other@kunde.test", "ed25519", "sign")
    own = read_grips(anna.home, anna.fingerprint).sign[0]
    other = read_grips(anna.home, "other@kunde.test").sign[0]
    before = sorted(path.name for path in (anna.home / "private-keys-v1.d").iterdir())
    for line in THEFT:
        answers = guest.talk(line.format(own=own, other=other))
        assert len(answers) == 2 and answers[0].startswith("ERR "), (line, answers)
    assert sorted(path.name for path in (anna.home / "private-keys-v1.d").iterdir()) == before
    assert {outcome for _, _, outcome in guest.notes} == {"refused"}
    exported = guest.gpg("--export-secret-keys", anna.fingerprint)
    assert exported.stdout == b""


@pytest.mark.parametrize(("answer", "works"), [(True, True), (False, False), (None, False)])
def test_the_user_is_asked_once_a_mail(
    anna: Person, answer: bool | None, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody_model, "ONE_ANSWER_S", 3600.0)  # a busy computer takes its time
    letter = encrypted(anna, b"Hallo")
    custody = Custody(Where.HOST, decrypt=Rule(ask=True), sign=Rule(ask=True))
    with Guest(anna, custody, answer).served() as guest:
        reads = [guest.gpg("--decrypt", stdin=letter) for _ in range(3)]
        said = [read.stderr.decode() for read in reads]
        assert [read.stdout == b"Hallo" for read in reads] == [works] * 3, said
        # Where nobody could be asked, each try asks again.
        assert guest.asked == ["decrypt"] * (3 if answer is None else 1)


def test_allowing_beforehand_asks_nobody(anna: Person) -> None:
    custody = Custody(Where.HOST, decrypt=Rule(ask=True), sign=Rule(ask=True))
    with Guest(anna, custody).served() as guest:
        guest.grants.allow(3600, time.monotonic())
        assert guest.gpg("--decrypt", stdin=encrypted(anna, b"Hallo")).stdout == b"Hallo"
        assert guest.asked == []


def test_an_agent_that_dies_or_is_away_is_an_error_that_passes(guest: Guest, anna: Person) -> None:
    letter = encrypted(anna, b"Hallo")
    guest.agent_home = Path("/nonexistent")
    failed = guest.gpg("--decrypt", stdin=letter)
    assert failed.returncode != 0 and b"DECRYPTION_FAILED" in failed.stderr
    guest.agent_home = anna.home
    agents.end(anna.home)
    assert guest.gpg("--decrypt", stdin=letter).stdout == b"Hallo"


def test_two_at_the_same_time_do_not_disturb_each_other(guest: Guest, anna: Person) -> None:
    letters = [encrypted(anna, f"Brief {number}".encode()) for number in range(8)]
    read: dict[int, bytes] = {}

    def work(number: int) -> None:
        read[number] = guest.gpg("--decrypt", stdin=letters[number]).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == {number: f"Brief {number}".encode() for number in range(8)}
