#!/usr/bin/python3 -ES
"""Evolution's session, as its user: bus, keyring, keys, account, and the program itself.

Started by `client.py`, which tells it what to do by files in MAILBOX_STATE_DIR: `desired.json`
(taken and deleted), `check.json`, `wake` and `quit`.  What it does goes to `status.jsonl` there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import evolution_dav
import evolution_keys
import evolution_smime
import evolution_sources
import program

Json = dict[str, Any]

STATE_DIR = program.STATE_DIR
HOME = Path(os.environ["HOME"])
CONFIG = HOME / ".config"
CACHE = HOME / ".cache" / "evolution" / "mail" / evolution_sources.ACCOUNT
APPLIED = CONFIG / "mailbox" / "applied"
KEYRING_PASSWORD = CONFIG / "mailbox" / "keyring"
PROGRAM = os.environ.get("MAILBOX_EVOLUTION", "/usr/bin/evolution")
KEYRING = ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"]

POLL_S = 0.2
BUS_DEADLINE_S = 60.0
WINDOW_DEADLINE_S = 300.0
INBOX_DEADLINE_S = 60.0
QUIT_DEADLINE_S = 12.0
WAKE_DEADLINE_S = 20.0
ESTABLISHED = "01"  # tcp_states.h
_PASSPHRASE = ["mailbox", "openpgp-passphrase"]


class FailureError(Exception):
    """Something without which the mailbox is of no use."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def report(event: Json) -> None:
    """One line for the host."""
    with (STATE_DIR / "status.jsonl").open("a") as sink:
        sink.write(json.dumps(event) + "\n")


def phase(name: str) -> None:
    """Something is done."""
    report({"event": "phase", "name": name})


def warning(code: str, message: str) -> None:
    """Something is not as wished, and the work goes on."""
    report({"event": "warning", "code": code, "message": message})


class Session:
    """The programs of the session, and what they were told last."""

    def __init__(self) -> None:
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._evolution: subprocess.Popen[bytes] | None = None
        self._incoming = ("", 0)
        self._keys: evolution_keys.Keys | None = None

    # -- bus and keyring

    def begin(self) -> None:
        """Start the bus at the address that the environment names, and open the keyring."""
        (STATE_DIR / "bus").unlink(missing_ok=True)
        address = os.environ["DBUS_SESSION_BUS_ADDRESS"]
        bus = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}"]
        self._daemons.append(subprocess.Popen(bus))
        _wait_for((STATE_DIR / "bus").exists, BUS_DEADLINE_S, "the session's bus did not start")
        keyring = subprocess.Popen(KEYRING, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._daemons.append(keyring)
        assert keyring.stdin is not None
        keyring.stdin.write(_keyring_password())
        keyring.stdin.close()
        _wait_for(_keyring_answers, BUS_DEADLINE_S, "the keyring did not start")

    # -- the desired state

    def apply(self, desired: Json) -> None:
        """Bring account and keys to the desired state; Evolution is started, again if needed."""
        digest = _digest(desired)
        changed = not APPLIED.exists() or APPLIED.read_text() != digest
        if changed:
            self.quit()
            APPLIED.unlink(missing_ok=True)
            _write_account(desired)
            _store_secrets(desired)
            _apply_certificate(desired)
        phase("account")
        self._apply_keys(desired["openpgp"])
        phase("keys")
        if changed:
            _write(APPLIED, digest)
        if not self.alive():
            self._start()
        _wait_for(self._has_window, WINDOW_DEADLINE_S, "Evolution showed no window")
        phase("window")
        self._incoming = _incoming_server(desired)
        self._await_inbox(INBOX_DEADLINE_S)
        phase("ready")

    def _apply_keys(self, wish: Json) -> None:
        self._keys = evolution_keys.of(wish, HOME, STATE_DIR, os.environ)
        os.environ["GNUPGHOME"] = str(self._keys.folder)  # for the Evolution that is started next
        try:
            for code, message in self._keys.apply(wish):
                warning(code, message)
        except evolution_keys.KeyFailureError as error:
            raise FailureError("key-import", str(error)) from None

    def check(self, request: Json) -> None:
        """Try keys with the GnuPG that Evolution uses; say of each whether it serves."""
        for key, problem in self._keys.check(request) if self._keys else ():
            report({"event": "checked", "key": key, "problem": problem})
        phase("ready")

    def wake(self) -> None:
        """Go on after the machine was away; Evolution is online again."""
        self._await_inbox(WAKE_DEADLINE_S)
        phase("ready")

    def _await_inbox(self, deadline_s: float) -> None:
        if not _wait(lambda: _inbox_is_there(*self._incoming), deadline_s):
            warning("inbox-not-synchronised", "The inbox was not synchronised: no answer in time.")

    # -- Evolution

    def alive(self) -> bool:
        """Whether Evolution runs."""
        return self._evolution is not None and self._evolution.poll() is None

    def _start(self) -> None:
        self._evolution = subprocess.Popen([PROGRAM, "--component=mail"])

    def _has_window(self) -> bool:
        if not self.alive():
            status = self._evolution.poll() if self._evolution else None
            message = f"Evolution ended before it was ready (status {status})."
            raise FailureError("client-failed", message)
        listing = subprocess.run(["wmctrl", "-lx"], capture_output=True, text=True, check=False)
        return "evolution" in listing.stdout.lower()

    def quit(self) -> bool:
        """End Evolution; whether it ended by itself."""
        if self._evolution is None or not self.alive():
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([PROGRAM, "--quit"], check=False, timeout=QUIT_DEADLINE_S)
        by_itself = _wait(lambda: not self.alive(), QUIT_DEADLINE_S)
        if not by_itself:
            self._evolution.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._evolution.wait(5)
        self._evolution = None
        return by_itself

    def end(self) -> None:
        """End what else was started; the newest first."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(5)


def _digest(desired: Json) -> str:
    """What a change of makes another start necessary."""
    wish = {name: value for name, value in desired.items() if name != "volume"}
    return hashlib.sha256(json.dumps(wish, sort_keys=True).encode()).hexdigest()


def _keyring_password() -> bytes:
    """A password made once: it rests on the encrypted volume, beside what it protects."""
    if not KEYRING_PASSWORD.exists():
        _write(KEYRING_PASSWORD, secrets.token_hex(32))
    return KEYRING_PASSWORD.read_bytes()


def _keyring_answers() -> bool:
    query = ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/"]
    query += ["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets"]
    return b"boolean true" in subprocess.run(query, capture_output=True, check=False).stdout


def _write_account(desired: Json) -> None:
    for name, text in evolution_sources.sources(desired).items():
        _write(CONFIG / "evolution" / name, text)
    _forget_collections({uid for uid, _, _ in evolution_dav.collections(desired)})
    settings = CONFIG / "glib-2.0" / "settings" / "keyfile"
    lines = settings.read_text().splitlines() if settings.exists() else []
    _write(settings, evolution_sources.merged(lines, evolution_sources.settings(desired)))
    # Evolution complains of its sandbox where this folder is missing.
    previews = HOME / ".local" / "share" / "evolution" / "preview-plugins"
    previews.mkdir(parents=True, exist_ok=True)


def _forget_collections(named: set[str]) -> None:
    """Calendars and address books that are named no more, their passwords and what was fetched."""
    for prefix, cache in evolution_dav.CACHES.items():
        for source in (CONFIG / "evolution" / "sources").glob(f"{prefix}*.source"):
            if source.stem not in named:
                source.unlink()
                command = ["secret-tool", "clear", *_attributes(source.stem)]
                subprocess.run(command, capture_output=True, check=False)
                shutil.rmtree(HOME / ".cache/evolution" / cache / source.stem, ignore_errors=True)


def _store_secrets(desired: Json) -> None:
    for uid, password in evolution_sources.passwords(desired).items():
        _store(f"Evolution: {uid}", _attributes(uid), password)
    keys = [desired["openpgp"].get("key"), *desired["openpgp"].get("retired", ())]
    passphrases = {key["passphrase"] for key in keys if key and key.get("passphrase")}
    for passphrase in passphrases:  # one protects all of them
        _store("OpenPGP", _PASSPHRASE, passphrase)
    if not passphrases:
        subprocess.run(["secret-tool", "clear", *_PASSPHRASE], capture_output=True, check=False)


def _attributes(uid: str) -> list[str]:
    """By what evolution-data-server finds the password of a source."""
    schema = ["xdg:schema", "org.gnome.Evolution.Data.Source", "e-source-uid", uid]
    return [*schema, "eds-origin", "evolution-data-server"]


def _store(label: str, attributes: list[str], secret: str) -> None:
    command = ["secret-tool", "store", f"--label={label}", *attributes]
    done = subprocess.run(command, input=secret.encode(), capture_output=True, check=False)
    if done.returncode:
        raise FailureError("client-failed", "the keyring in the machine did not take a password")


def _apply_certificate(desired: Json) -> None:
    try:
        evolution_smime.Certificates(HOME, STATE_DIR).apply(desired.get("smime"))
    except evolution_smime.CertificateFailureError as error:
        raise FailureError("smime-import", str(error)) from None


def _incoming_server(desired: Json) -> tuple[str, int]:
    """The loopback address that stands for the server of the inbox, and its port."""
    server = desired["account"]["incoming"]
    return desired.get("hosts", {}).get(server["host"], ""), server["port"]


def _inbox_is_there(address: str, port: int) -> bool:
    """Whether Evolution has an inbox on the volume, and a connection to its server."""
    tables = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return (CACHE / "folders" / "INBOX").exists() and any(
        connected(line, address, port) for line in tables
    )


def connected(line: str, address: str, port: int) -> bool:
    """Whether a line of /proc/net/tcp is a connection to this address (proc(5))."""
    fields = line.split()
    reversed_address = "".join(f"{int(part):02X}" for part in reversed(address.split(".")) if part)
    return fields[2] == f"{reversed_address}:{port:04X}" and fields[3] == ESTABLISHED


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    program.write(path, text.encode())


def _wait(condition: Any, deadline_s: float) -> bool:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def _wait_for(condition: Any, deadline_s: float, otherwise: str) -> None:
    if not _wait(condition, deadline_s):
        raise FailureError("client-failed", otherwise)


def _take(name: str) -> str | None:
    path = STATE_DIR / name
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    path.unlink()  # the desired state holds secrets
    return text


def _follow(session: Session) -> None:
    """Do what the files say that lie there."""
    try:
        if (text := _take("desired.json")) is not None:
            session.apply(json.loads(text))
        if _take("wake") is not None:
            session.wake()
        if (text := _take("check.json")) is not None:
            session.check(json.loads(text))
    except FailureError as error:
        report({"event": "error", "code": error.code, "message": str(error)})
    except (OSError, subprocess.SubprocessError) as error:
        report({"event": "error", "code": "client-failed", "message": type(error).__name__})


def main() -> int:
    """Serve until asked to leave, or until the person has closed Evolution."""
    os.umask(0o077)
    session = Session()
    try:
        session.begin()
        _follow(session)
        while session.alive() and _take("quit") is None:
            time.sleep(POLL_S)
            _follow(session)
        return 0 if session.quit() else 1
    except FailureError as error:
        report({"event": "error", "code": error.code, "message": str(error)})
        return 1
    finally:
        session.end()


if __name__ == "__main__":
    sys.exit(main())
