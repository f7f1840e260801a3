"""A real mail server for one customer and one correspondent: Dovecot in a folder of its own."""

from __future__ import annotations

import contextlib
import grp
import imaplib
import os
import pwd
import secrets
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from demo.authority import Credentials, issue, renew
from demo.dovecot import Account, Ports, configuration, users_file
from demo.leftovers import die_with_parent
from demo.relay import Relay

CUSTOMER = "anna@kunde.test"
CORRESPONDENT = "bert@partner.test"
NAMES = (
    "imap.kunde.test",
    "smtp.kunde.test",
    "imap-neu.kunde.test",
    "smtp-neu.kunde.test",
    "mail.partner.test",
    "dav.kunde.test",
)

_START_DEADLINE_S = 30.0


class MailServerError(Exception):
    """The mail server did not do what was asked of it."""


class MailServer:
    """Start with `with MailServer() as server:`; nothing of it is left afterwards.

    As root, all of it runs as `nobody`, because Dovecot delivers no mail as root.
    """

    def __init__(
        self,
        *,
        names: Sequence[str] = NAMES,
        credentials: Credentials | None = None,
    ) -> None:
        self.names = tuple(names)
        self.credentials = credentials or issue(self.names)
        self.ports = Ports(*_free_ports(6))
        # Of this server only, so that they can be looked for everywhere.
        self._passwords = {
            CUSTOMER: f"Anna-Geheim-{secrets.token_hex(8)}",
            CORRESPONDENT: f"Bert-Geheim-{secrets.token_hex(8)}",
        }
        self._account = _account()
        self._folder = Path("/nonexistent")
        self._dovecot: subprocess.Popen[bytes] | None = None
        self._relay = Relay(self.ports.relay, self.deliver)

    @property
    def authority(self) -> str:
        """The certificate (PEM) to trust."""
        return self.credentials.authority

    @property
    def folder(self) -> Path:
        """Where the server keeps everything."""
        return self._folder

    def password(self, address: str) -> str:
        """The password of a mailbox."""
        return self._passwords[address]

    def __enter__(self) -> MailServer:
        self._folder = Path(tempfile.mkdtemp(prefix="mailserver-"))
        try:
            self._relay.start()
            self._write_files()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every process, and remove the folder."""
        self._stop_dovecot()
        self._relay.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self) -> None:
        """Stop and start Dovecot, on the same ports and the same mail."""
        self._stop_dovecot()
        self._start()

    def renew_certificate(self) -> None:
        """Another key and certificate, by the same authority."""
        self.credentials = renew(self.credentials, self.names)
        self._write_files()
        self.restart()

    def move(self) -> None:
        """The same mail on other ports; nothing answers on the old ones."""
        self._stop_dovecot()
        self.ports = replace(Ports(*_free_ports(6)), relay=self.ports.relay)
        self._write_files()
        self._start()

    def pause(self) -> contextlib.AbstractContextManager[None]:
        """Nothing answers on the server's ports inside the `with` block."""

        @contextlib.contextmanager
        def paused() -> Iterator[None]:
            self._stop_dovecot()
            try:
                yield
            finally:
                self._start()

        return paused()

    def set_password(self, address: str, password: str) -> None:
        """Change the password of a mailbox, from the next login on; open connections stay."""
        self._passwords[address] = password
        self._write("users", users_file(self._passwords))
        # Dovecot looks at the file once a second, and tells its age in seconds.
        time.sleep(1 - time.time() % 1 + 0.01)

    def deliver(self, message: bytes, mailbox: str) -> None:
        """Put a message into the inbox of an address."""
        with smtplib.LMTP("127.0.0.1", self.ports.lmtp) as lmtp:
            refused = lmtp.sendmail("relay@localhost", [mailbox], message)
        if refused:
            raise MailServerError(f"{mailbox} was refused: {refused}")

    def messages(self, user: str, folder: str = "INBOX") -> list[bytes]:
        """All messages in a folder, as the server holds them, the oldest first."""
        with self._imap(user) as imap:
            status, _ = imap.select(folder, readonly=True)
            if status != "OK":
                raise MailServerError(f"{user} has no folder {folder}")
            numbers = imap.search(None, "ALL")[1][0].split()
            return [_body(imap, number.decode()) for number in numbers]

    def wait_for_messages(
        self, user: str, count: int, *, folder: str = "INBOX", deadline_s: float = 60
    ) -> list[bytes]:
        """The messages of a folder, as soon as there are at least `count`."""
        end = time.monotonic() + deadline_s
        while len(found := self.messages(user, folder)) < count:
            if time.monotonic() > end:
                raise MailServerError(f"{folder} of {user}: {len(found)} of {count} messages")
            time.sleep(0.2)
        return found

    def log(self, lines: int = 20) -> str:
        """The last lines of Dovecot's log."""
        found: list[str] = []
        for name in ("start.log", "dovecot.log"):
            with contextlib.suppress(OSError):
                found += (self._folder / name).read_text(errors="replace").splitlines()
        return "\n".join(found[-lines:])

    def _imap(self, user: str) -> imaplib.IMAP4_SSL:
        context = ssl.create_default_context(cadata=self.authority)
        context.check_hostname = False  # reached by address here, by name from a mailbox
        imap = imaplib.IMAP4_SSL("127.0.0.1", self.ports.imaps, ssl_context=context, timeout=20)
        imap.login(user, self._passwords[user])
        return imap

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_text(text)
        os.chown(draft, self._account.uid, self._account.gid)
        draft.replace(path)

    def _write_files(self) -> None:
        os.chown(self._folder, self._account.uid, self._account.gid)
        version = _run_dovecot("--version").split()[0]
        self._write("dovecot.conf", configuration(version, self._folder, self.ports, self._account))
        self._write("users", users_file(self._passwords))
        self._write("server.pem", self.credentials.certificate)
        self._write("server.key", self.credentials.key)

    def _start(self) -> None:
        root = os.geteuid() == 0
        with (self._folder / "start.log").open("wb") as words:
            self._dovecot = subprocess.Popen(
                [_dovecot(), "-F", "-c", str(self._folder / "dovecot.conf")],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                cwd=self._folder,
                preexec_fn=die_with_parent,
                user=self._account.uid if root else None,
                group=self._account.gid if root else None,
                extra_groups=[] if root else None,
                start_new_session=True,  # a Ctrl-C is for us to handle
            )
        self._await_ports(open_=True)

    def _stop_dovecot(self) -> None:
        child, self._dovecot = self._dovecot, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)
        self._await_ports(open_=False)

    def _await_ports(self, *, open_: bool) -> None:
        end = time.monotonic() + _START_DEADLINE_S
        while any(_listens(port) != open_ for port in self.ports.listening()):
            ended = open_ and self._dovecot is not None and self._dovecot.poll() is not None
            if ended or time.monotonic() > end:
                raise MailServerError(
                    f"Dovecot did not {'start' if open_ else 'stop'}:\n{self.log()}"
                )
            time.sleep(0.05)


def _body(imap: imaplib.IMAP4_SSL, number: str) -> bytes:
    part = imap.fetch(number, "(BODY.PEEK[])")[1][0]
    if not isinstance(part, tuple):
        raise MailServerError(f"message {number} is not there")
    return bytes(part[1])


def _account() -> Account:
    entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return Account(entry.pw_name, grp.getgrgid(entry.pw_gid).gr_name, entry.pw_uid, entry.pw_gid)


def _dovecot() -> str:
    found = shutil.which("dovecot") or shutil.which("dovecot", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise MailServerError("Dovecot is not installed")
    return found


def _run_dovecot(*arguments: str) -> str:
    return subprocess.run(
        [_dovecot(), *arguments], capture_output=True, text=True, check=True
    ).stdout


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
