"""The desired S/MIME certificate in Evolution's certificate database (NSS)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TIMEOUT_S = 120
_FOR_MAIL = ",C,"  # servers, mail, code: an authority for mail alone


class CertificateFailureError(Exception):
    """The certificate of the desired state was not accepted."""


def nickname(wish: Json) -> str:
    """The name that the file gives the certificate; the account's settings name it so."""
    return f"mailbox {wish['fingerprint'][:16]}"


class Certificates:
    """The database of a mailbox; what came from a desired state is noted, and goes with it."""

    def __init__(self, home: Path, memory: Path) -> None:
        self._folder = home / ".pki" / "nssdb"  # where camel looks (camel.c)
        self._note = self._folder / "mailbox-certificate.json"
        self._memory = memory  # a folder that is in no file system on a disk

    def apply(self, wish: Json | None) -> None:
        """Have this certificate and these authorities, and no longer those of before."""
        mark = hashlib.sha256(json.dumps(wish, sort_keys=True).encode()).hexdigest()
        before = self._noted()
        if before.get("mark", "") == mark or not (wish or before):
            return
        self._make()
        for name in before.get("own", []):
            self._certutil("-F", "-n", name, check=False)  # with its key
        for name in before.get("authorities", []):
            self._certutil("-D", "-n", name, check=False)
        self._note.unlink(missing_ok=True)
        if wish:
            authorities = [self._trust(pem) for pem in wish.get("ca") or []]
            self._import(wish)
            told = {"mark": mark, "own": [nickname(wish)], "authorities": authorities}
            self._note.write_text(json.dumps(told))

    def _noted(self) -> Json:
        try:
            found = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _make(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self._folder / "cert9.db").exists():
            self._certutil("-N", "--empty-password")

    def _import(self, wish: Json) -> None:
        file, word = self._memory / "certificate.p12", self._memory / "certificate.word"
        try:
            file.write_bytes(base64.b64decode(wish["pkcs12"]))
            word.write_text(wish["passphrase"])
            command = ["pk12util", "-i", str(file), "-w", str(word), "-d", self._database, "-K", ""]
            done = self._run(command)
        finally:
            file.unlink(missing_ok=True)
            word.unlink(missing_ok=True)
        if done.returncode or self._certutil("-L", "-n", nickname(wish), check=False).returncode:
            raise CertificateFailureError("The S/MIME certificate was not accepted.")

    def _trust(self, pem: str) -> str:
        """Trust an authority for mail; returns the name that it has in the database."""
        name = "mailbox " + hashlib.sha256(pem.encode()).hexdigest()[:16]
        self._certutil("-A", "-a", "-n", name, "-t", _FOR_MAIL, data=pem)
        # One that was there already keeps its name.
        return next(known for known in self._names() if _same(self._pem(known), pem))

    def _names(self) -> Iterator[str]:
        for line in self._certutil("-L").stdout.splitlines():
            found = re.match(r"(.*\S)\s+[a-zA-Z]*,[a-zA-Z]*,[a-zA-Z]*\s*\Z", line)
            if found:
                yield found[1]

    def _pem(self, name: str) -> str:
        return self._certutil("-L", "-a", "-n", name, check=False).stdout

    @property
    def _database(self) -> str:
        return f"sql:{self._folder}"

    def _certutil(
        self, *arguments: str, data: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = self._run(["certutil", *arguments, "-d", self._database], data)
        if check and done.returncode:
            raise CertificateFailureError("The certificate database could not be changed.")
        return done

    def _run(self, command: list[str], data: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            input=data,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
        )


def _same(one: str, other: str) -> bool:
    return _body(one) == _body(other) != ""


def _body(pem: str) -> str:
    """The first certificate of a text, without armor."""
    found = re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END", pem, re.DOTALL)
    return re.sub(r"\s+", "", found[1]) if found else ""
