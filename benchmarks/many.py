"""Three hundred correspondents against one: accepting, listing, opening, and the clients' part.

    python -m benchmarks.many [--count N] [--json FILE] [--without-thunderbird]

Everything real but the machine: GnuPG, a keyring of its own, what Evolution's image does with it,
and, with Thunderbird installed here, the files of its image. All figures of one run are of one
computer; the ratio is what counts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import computer
from benchmarks.goals import Finding, Table
from demo.correspondent import Person
from demo.desired import desired_state, own_key
from demo.guestcode import guest_module
from demo.mailserver import CUSTOMER, MailServer
from demo.native import NativeThunderbird, missing
from demo.session import Session
from sandbox.host.keyreader import KeyReader

Json = dict[str, Any]


def make_people(count: int) -> list[Json]:
    """Correspondents as a desired state has them; their keys are made here, without passphrases."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as folder:
        gpg = ["gpg", "--homedir", folder, "--batch", "--quiet", "--no-tty"]
        wanted = "%no-protection\n" + "".join(_parameters(number) for number in range(count))
        try:
            command = [*gpg, "--no-auto-check-trustdb", "--generate-key"]
            subprocess.run(command, input=wanted.encode(), check=True, capture_output=True)
            exported = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
        finally:
            subprocess.run(["gpgconf", "--homedir", folder, "--kill", "all"], check=False)
        (reading,) = KeyReader(Path(folder) / "run").read([exported])
    return [
        {
            "fingerprint": each.key.fingerprint,
            "addresses": list(each.key.addresses),
            "public": each.public,
        }
        for each in reading.keys
    ]


def _parameters(number: int) -> str:
    """One key for GnuPG's unattended generation."""
    return (
        "Key-Type: EDDSA\nKey-Curve: ed25519\nKey-Usage: cert,sign\n"
        "Subkey-Type: ECDH\nSubkey-Curve: cv25519\nSubkey-Usage: encrypt\n"
        f"Name-Real: Person {number}\nName-Email: person{number}@partner.test\n"
        "Expire-Date: 0\n%commit\n"
    )


def seconds(action: Callable[[], object]) -> float:
    """How long it took."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def on_the_host(people: list[Json]) -> dict[str, float]:
    """`keys add`, `keys list` and what `open` gathers, in a session of their own."""
    with tempfile.TemporaryDirectory(prefix="many-") as folder, Session(Path(folder)) as session:
        file = Path(folder) / "keys.asc"
        file.write_text("\n".join(each["public"] for each in people))
        account = ("--address", CUSTOMER, "--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test")
        options = ("--password-stdin", "--offline", "--generate-key", "--no-recovery-code")
        size = ("--size", "64M")
        session.mailbox("onboard", "kunde", *account, *options, *size, input=b"password\n")
        return {
            "keys add": seconds(
                lambda: session.mailbox("keys", "add", "kunde", str(file), "--all")
            ),
            "keys list": seconds(lambda: session.mailbox("keys", "list", "kunde")),
            "gather": seconds(lambda: _gather(session, people)),
        }


def _gather(session: Session, people: list[Json]) -> None:
    """The exports of `open`, in a process with the session's environment."""
    program = (
        "import sys, os; from pathlib import Path; from sandbox.host.gnupg import ProfileKeyring;"
        "from sandbox.state.paths import find_paths;"
        "ring = ProfileKeyring(find_paths(os.environ).gnupg('kunde'));"
        "assert len(ring.public(sys.argv[1:])) == len(sys.argv) - 1"
    )
    prints = [each["fingerprint"] for each in people]
    command = [sys.executable, "-c", program, *prints]
    subprocess.run(command, check=True, env=session.env)


def for_evolution(people: list[Json]) -> dict[str, float]:
    """Evolution's key ring, which GnuPG has to trust: all of them new, none of them, one gone."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as folder:
        env = {"HOME": folder, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        with Person("Anna Kundin", CUSTOMER) as customer:
            key = own_key(customer)
        keys = guest_module("evolution", "evolution_keys", {}).Keys(Path(folder), env)
        try:
            return {
                f"evolution, {name}": seconds(
                    lambda now=now: keys.apply({"key": key, "correspondents": now})
                )
                for name, now in (
                    ("all new", people),
                    ("none new", people),
                    ("one gone", people[1:]),
                )
            }
        finally:
            subprocess.run(["gpgconf", "--homedir", str(keys.folder), "--kill", "all"], check=False)


def in_thunderbird(people: list[Json]) -> dict[str, float]:
    """Seconds from `account` to `keys`: all of them new, none of them changed, one changed."""
    with ExitStack() as stack:
        customer = stack.enter_context(Person("Anna Kundin", CUSTOMER))
        server = stack.enter_context(MailServer())
        thunderbird = stack.enter_context(NativeThunderbird(local_names=server.names))
        found = {}
        for name, correspondents in (
            ("thunderbird, without any", []),
            ("thunderbird, all new", people),
            ("thunderbird, none new", people),
            ("thunderbird, one gone", people[1:]),
        ):
            desired = desired_state(server, customer, ())
            desired["openpgp"]["correspondents"] = correspondents
            found[name] = _keys_phase(thunderbird, desired)
            thunderbird.close()
        return found


def _keys_phase(thunderbird: NativeThunderbird, desired: Json) -> float:
    times = {each.get("name"): each.get("uptime", 0.0) for each in thunderbird.open(desired)}
    if "ready" not in times:
        raise RuntimeError("Thunderbird did not become ready")
    return float(times["keys"] - times["account"])


def finding(rows: list[tuple[str, float, float]], count: int) -> Finding:
    """As a table for a page."""
    told = tuple(
        (name, f"{one:.2f}", f"{many:.2f}", f"{many / one:.1f}") for name, one, many in rows
    )
    heading = ("Seconds", "1", str(count), "Ratio")
    seen = [{"what": name, "one_s": one, "many_s": many} for name, one, many in rows]
    return Finding("many", computer.facts(), (), (Table("Correspondents", heading, told),), seen)


def main() -> int:
    """Measure one and many in the same run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many", description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--without-thunderbird", action="store_true")
    wanted = parser.parse_args()
    people = make_people(wanted.count)
    parts: list[Callable[[list[Json]], dict[str, float]]] = [on_the_host, for_evolution]
    if not wanted.without_thunderbird and not missing():
        parts.append(in_thunderbird)
    rows = []
    for part in parts:
        one, many = part(people[:1]), part(people)
        rows += [(name, one[name], many[name]) for name in one]
    print(f"{'':<28} {'1':>8} {wanted.count:>8}    ratio")
    for name, one_s, many_s in rows:
        print(f"{name:<28} {one_s:7.2f}s {many_s:7.2f}s {many_s / one_s:8.1f}")
    if wanted.json:
        finding(rows, wanted.count).write(wanted.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
