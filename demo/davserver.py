"""A real CalDAV and CardDAV server for one customer: Radicale in a folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

from demo.authority import Credentials
from demo.leftovers import die_with_parent

HOST = "dav.kunde.test"
LOGIN = "anna"
CALENDAR = f"/{LOGIN}/termine/"
ADDRESS_BOOK = f"/{LOGIN}/kontakte/"

_START_DEADLINE_S = 30.0
_MAKE = """<?xml version="1.0" encoding="utf-8"?>
<mkcol xmlns="DAV:" xmlns:c="urn:ietf:params:xml:ns:caldav"
  xmlns:r="urn:ietf:params:xml:ns:carddav"><set><prop>
<resourcetype><collection/>{kind}</resourcetype><displayname>{name}</displayname>
</prop></set></mkcol>"""
_CONFIGURATION = """\
[server]
hosts = 127.0.0.1:{port}
ssl = True
certificate = {folder}/server.pem
key = {folder}/server.key
[auth]
type = htpasswd
htpasswd_filename = {folder}/users
htpasswd_encryption = plain
delay = 0
realm = Termine und Kontakte
[storage]
filesystem_folder = {folder}/collections
[logging]
level = info
"""


class DavServerError(Exception):
    """The server did not do what was asked of it."""


class DavServer:
    """Start with `with DavServer(credentials) as server:`; nothing of it is left afterwards.

    It has a calendar and an address book of the customer, both empty.
    """

    def __init__(self, credentials: Credentials) -> None:
        self.port = _free_port()
        self.password = f"Anna-Termine-{secrets.token_hex(8)}"  # of this server only
        self._credentials = credentials
        self._folder = Path("/nonexistent")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where it keeps everything."""
        return self._folder

    @property
    def calendar(self) -> str:
        """The URL of the customer's calendar, as a profile names it."""
        return f"https://{HOST}{CALENDAR}"

    @property
    def address_book(self) -> str:
        """The URL of the customer's address book."""
        return f"https://{HOST}{ADDRESS_BOOK}"

    def __enter__(self) -> DavServer:
        self._folder = Path(tempfile.mkdtemp(prefix="davserver-"))
        try:
            self._write_files()
            self._start()
            calendar = '<c:calendar xmlns:c="urn:ietf:params:xml:ns:caldav"/>'
            self._make(CALENDAR, calendar, "Termine")
            self._make(ADDRESS_BOOK, "<r:addressbook/>", "Kontakte")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and remove its folder."""
        self._end()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Nothing answers inside the `with` block."""
        self._end()
        try:
            yield
        finally:
            self._start()

    def set_password(self, password: str) -> None:
        """Change the customer's password."""
        self.password = password
        self._write("users", f"{LOGIN}:{password}\n")
        with self.pause():  # it reads the file once
            pass

    def add_event(self, uid: str, summary: str, day: str = "20300114") -> None:
        """An event of an hour, as another program of the customer would put it there."""
        lines = [
            *("BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//kunde//demo//DE", "BEGIN:VEVENT"),
            *(f"UID:{uid}", "DTSTAMP:20260101T000000Z", f"SUMMARY:{summary}"),
            *(f"DTSTART:{day}T100000Z", f"DTEND:{day}T110000Z", "END:VEVENT", "END:VCALENDAR"),
        ]
        self._put(f"{CALENDAR}{uid}.ics", "text/calendar", lines)

    def add_contact(self, uid: str, name: str, address: str) -> None:
        """A person in the customer's address book."""
        lines = [
            *("BEGIN:VCARD", "VERSION:3.0", f"UID:{uid}", f"FN:{name}", f"N:{name};;;;"),
            *(f"EMAIL;TYPE=work:{address}", "END:VCARD"),
        ]
        self._put(f"{ADDRESS_BOOK}{uid}.vcf", "text/vcard", lines)

    def content(self, path: str) -> str:
        """All that is in a collection, in its own format."""
        return self._ask("GET", path)[1]

    def wait_for(self, path: str, text: str, deadline_s: float = 60) -> str:
        """The collection's content, as soon as `text` is in it."""
        end = time.monotonic() + deadline_s
        while text not in (found := self.content(path)):
            if time.monotonic() > end:
                raise DavServerError(f"{path} has no {text!r}:\n{found}\n{self.log()}")
            time.sleep(0.2)
        return found

    def log(self, lines: int = 20) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            found = (self._folder / "log").read_text(errors="replace").splitlines()
            return "\n".join(found[-lines:])
        return ""

    def _put(self, path: str, kind: str, lines: list[str]) -> None:
        body = "".join(f"{line}\r\n" for line in lines)
        self._ask("PUT", path, body, {"Content-Type": f"{kind}; charset=utf-8"}, (201, 204))

    def _make(self, path: str, kind: str, name: str) -> None:
        self._ask("MKCOL", path, _MAKE.format(kind=kind, name=name), {}, (201,))

    def _ask(
        self,
        method: str,
        path: str,
        body: str = "",
        headers: dict[str, str] | None = None,
        expected: tuple[int, ...] = (200,),
    ) -> tuple[int, str]:
        context = ssl.create_default_context(cadata=self._credentials.authority)
        context.check_hostname = False  # reached by address here, by name from a mailbox
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, context=context, timeout=20
        )
        login = b64encode(f"{LOGIN}:{self.password}".encode()).decode()
        sent = {"Authorization": f"Basic {login}", **(headers or {})}
        with contextlib.closing(connection):
            connection.request(method, path, body.encode(), sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status not in expected:
            raise DavServerError(f"{method} {path}: {answer.status} {text[:200]}\n{self.log()}")
        return answer.status, text

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(text)

    def _write_files(self) -> None:
        self._write("server.pem", self._credentials.certificate)
        self._write("server.key", self._credentials.key)
        self._write("users", f"{LOGIN}:{self.password}\n")
        self._write("config", _CONFIGURATION.format(port=self.port, folder=self._folder))

    def _start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "radicale", "--config", str(self._folder / "config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self._folder)},
                preexec_fn=die_with_parent,
                start_new_session=True,  # a Ctrl-C is for us to handle
            )
        end = time.monotonic() + _START_DEADLINE_S
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                raise DavServerError(f"Radicale did not start:\n{self.log()}")
            time.sleep(0.05)

    def _end(self) -> None:
        child, self._process = self._process, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(10)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0
