"""What the filter in front of a key on the host costs a mail (benchmarks/README.md)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.samples import Sample, figure, of_kind
from demo.correspondent import Person, public_home
from sandbox.host.custody.client import Custodians

WAYS = ("direct", "filter")
ALLOWED = 1.3
_QUIET = ("--pinentry-mode", "loopback", "--passphrase", "")


class Reader:
    """A GnuPG home with public keys only, whose agent is at a socket."""

    def __init__(self, folder: Path, owner: Person, agent: Path) -> None:
        self._home = folder
        public_home(folder, owner.public_key(), agent)

    def read(self, mail: bytes, expected: bytes) -> float:
        """Decrypt a mail as a mail client does, with a gpg of its own; returns seconds."""
        begun = time.perf_counter()
        text = self._gpg("--decrypt", data=mail)
        taken = time.perf_counter() - begun
        if text != expected:
            raise RuntimeError("another text came out")
        return taken

    def _gpg(self, *arguments: str, data: bytes) -> bytes:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--quiet", *arguments]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def custodian(folder: Path, owner: Person) -> Path:
    """Start the real one in front of this person's agent; returns its socket."""
    os.environ["GNUPGHOME"] = str(owner.home)
    names = ("socket", "control", "log_file", "activity", "turns")
    config = {name: str(folder / name) for name in names}
    told = {"profile_id": str(uuid.uuid4()), "name": "bench", "fingerprint": owner.fingerprint}
    rules = {"decrypt": "allow", "sign": "allow", "home": None}
    Custodians().start({**config, **told, **rules})
    return folder / "socket"


def measure(owner: Person, mails: int, kind: str) -> list[Sample]:
    """So many mails in a row, each by both ways, which take turns at being first."""
    letters = [f"Letter {number}\n".encode() * 20 for number in range(mails)]
    sealed = [
        bytes(owner.gpg.encrypt(each, [owner.fingerprint], always_trust=True).data)
        for each in letters
    ]
    samples = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        direct = subprocess.run(
            ["gpgconf", "--homedir", str(owner.home), "--list-dirs", "agent-extra-socket"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        stack.callback(lambda: Custodians().stop(folder / "control"))
        sockets = {"direct": Path(direct), "filter": custodian(folder, owner)}
        readers = {way: Reader(folder / f"{way}-home", owner, sockets[way]) for way in WAYS}
        for way in WAYS:
            readers[way].read(sealed[0], letters[0])  # fills caches; not counted
        for number, (mail, text) in enumerate(zip(sealed, letters, strict=True)):
            for way in WAYS if number % 2 else reversed(WAYS):
                sample = Sample(way, kind, number)
                sample.add("mail", readers[way].read(mail, text))
                samples.append(sample)
    return samples


def ratio(samples: Sequence[Sample], kind: str) -> float:
    """All mails through the filter divided by all of them without it."""
    whole = {way: sum(each.seconds["mail"] for each in of_kind(samples, way, kind)) for way in WAYS}
    return whole["filter"] / whole["direct"]


def table(samples: Sequence[Sample], kind: str) -> str:
    """Medians and ends of both ways, and the ratio of the whole."""
    rows = [f"{kind}: decrypting {len(of_kind(samples, 'direct', kind))} mails in a row"]
    for way in WAYS:
        group = of_kind(samples, way, kind)
        one, whole = figure(group, "mail"), sum(each.seconds["mail"] for each in group)
        assert one is not None
        ends = (
            f"median {1000 * one.median:.1f} ms ({1000 * one.least:.1f} to {1000 * one.most:.1f})"
        )
        rows.append(f"  {way:<8} {whole:7.2f} s, {ends}")
    rows.append(f"  filter / direct: {ratio(samples, kind):.3f} (at most {ALLOWED} is wanted)")
    return "\n".join(rows)


def rsa(owner: Person) -> Person:
    """Give somebody an RSA key instead."""
    said = ("--quick-gen-key", "rsa@kunde.test", "rsa4096", "default", "1y")
    owner.gpg_command(*_QUIET, *said)
    listed = [key for key in owner.gpg.list_keys(True) if "rsa@kunde.test" in str(key["uids"])]
    owner.fingerprint = str(listed[0]["fingerprint"])
    owner.gpg_command(*_QUIET, "--quick-add-key", owner.fingerprint, "rsa4096", "encrypt", "1y")
    return owner


def main() -> int:
    """The entry point; fails where the filter costs more than is wanted."""
    parser = argparse.ArgumentParser(prog="benchmarks.custody", description=__doc__)
    parser.add_argument("--mails", type=int, default=100)
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    samples: list[Sample] = []
    for kind in ("ed25519/cv25519", "rsa4096"):
        with Person("Anna Kundin", "anna@kunde.test") as owner:
            samples += measure(rsa(owner) if kind == "rsa4096" else owner, said.mails, kind)
        print(table(samples, kind), flush=True)
    if said.json:
        said.json.write_text(json.dumps([vars(sample) for sample in samples], indent=2) + "\n")
    kinds = dict.fromkeys(sample.kind for sample in samples)
    return 0 if all(ratio(samples, kind) <= ALLOWED for kind in kinds) else 1


if __name__ == "__main__":
    sys.exit(main())
