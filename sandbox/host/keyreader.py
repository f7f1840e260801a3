"""Keys of strangers, looked at before anything is kept: in a key ring that goes with the look."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sandbox.host import process
from sandbox.host.listing import SIGNED_ONLY, read_listing
from sandbox.model.offers import Reading, ReadKey
from sandbox.model.packets import Bundle, armored, read_keys
from sandbox.state import files

# Signatures of others are of no use here, and there may be any number of them.
_IMPORT = ("--import-options", "self-sigs-only,import-minimal", "--import")
_EXPORT = ("--export-options", "export-minimal", "--export")
_TIMEOUT_S = 120.0


class KeyReader:
    """Lets GnuPG read and verify keys in a folder of its own, in memory."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime

    def read(self, untrusted: Sequence[bytes]) -> list[Reading]:
        """What each of the contents holds; however many, GnuPG is started a few times only."""
        split = [_split(content) for content in untrusted]
        known = self._look([bundle for bundles, _ in split for bundle in bundles])
        return [_reading(bundles, problems, known) for bundles, problems in split]

    def _look(self, bundles: Sequence[Bundle]) -> dict[str, ReadKey]:
        """The keys by fingerprint; what GnuPG takes for no key is missing."""
        if not bundles:
            return {}
        with self._ring() as home:
            self._gpg(home, *_IMPORT, data=b"".join(each.data for each in bundles))
            listing = self._gpg(home, "--with-colons", "--fixed-list-mode", "--list-keys")
            exported = self._gpg(home, *_EXPORT)
        known = {key.fingerprint: key for key in read_listing(listing.decode(errors="replace"))}
        return {
            each.fingerprint: ReadKey(known[each.fingerprint], armored(each.data))
            for each in (read_keys(exported) if exported else ())
            if each.fingerprint in known
        }

    def _gpg(self, home: Path, *arguments: str, data: bytes | None = None) -> bytes:
        options = ["--batch", "--no-tty", "--no-autostart", "--display-charset", "utf-8"]
        options += ["--homedir", str(home), "--trust-model", "always", "--no-auto-check-trustdb"]
        options += [SIGNED_ONLY]
        # Its status says only that some part was of no use, which the listing tells better.
        done = process.run(
            ["gpg", *options, *arguments], input=data, check=False, timeout=_TIMEOUT_S
        )
        return done.stdout

    @contextlib.contextmanager
    def _ring(self) -> Iterator[Path]:
        files.private_folder(self._runtime)
        self._clear()
        home = Path(tempfile.mkdtemp(prefix=f".keys-{os.getpid()}-", dir=self._runtime))
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _clear(self) -> None:
        """What a look that was killed has left; it holds nothing but public keys."""
        for left in self._runtime.glob(".keys-*-*"):
            pid = left.name.split("-")[1]
            if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
                shutil.rmtree(left, ignore_errors=True)


def _split(content: bytes) -> tuple[tuple[Bundle, ...], tuple[str, ...]]:
    """The public keys of a content, and what else is in it."""
    try:
        bundles = read_keys(content)
    except ValueError as error:
        return (), (str(error),)
    if any(each.secret for each in bundles):
        return (), ("holds a secret key",)
    return bundles, ()


def _reading(
    bundles: Sequence[Bundle], problems: tuple[str, ...], known: dict[str, ReadKey]
) -> Reading:
    prints = dict.fromkeys(each.fingerprint for each in bundles if each.fingerprint in known)
    refused = (each for each in bundles if each.fingerprint not in known)
    reasons = (
        f"{each.fingerprint or 'one key'} is refused by GnuPG (version {each.version}, no user id "
        "that its owner signed, or damaged)"
        for each in refused
    )
    return Reading(tuple(known[each] for each in prints), (*problems, *reasons))
