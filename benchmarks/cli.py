"""How long the commands take that only look, with many mailboxes (benchmarks/README.md)."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from benchmarks import computer, goals
from benchmarks.goals import Finding, Measured, Table
from benchmarks.samples import Figure, Sample, figure, of_kind
from demo.session import Session
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.state.journal import Journal
from sandbox.state.paths import Paths, find_paths
from sandbox.state.records import Records

BASELINE = "python -c pass"
# What is measured, and the arguments of `mailbox` for it.
COMMANDS = {
    "mailbox --help": ("--help",),
    "mailbox list": ("list",),
    "mailbox list --json": ("list", "--json"),
    "mailbox status NAME": ("status", "customer000"),
}
KEYS = {"mailbox --help": "help", "mailbox list": "list"}
_STEPS = {
    "open": ("verify", "check", "start", "warden", "gather", "channel", "plug", "provision"),
    "close": ("shutdown", "warden", "machine", "traces"),
}


class _Silent:
    """Progress that nobody watches."""

    def step(self, title: str) -> None: ...
    def detail(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


def make_mailboxes(session: Session, count: int, opens: int) -> None:
    """One is onboarded; the others get profile, volume and journal like it has, after `opens`."""
    session.mailbox(
        *("onboard", "customer000", "--offline", "--address", "anna@kunde.test", "--size", "64M"),
        *("--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test", "--password-stdin"),
        *("--no-recovery-code", "--generate-key"),
        input=b"password\n",
    )
    paths = find_paths({"MAILBOX_HOME": str(session.home)})
    _age(paths, "customer000", opens)
    for number in range(1, count):
        _multiply(paths, "customer000", f"customer{number:03}")


def _age(paths: Paths, name: str, opens: int) -> None:
    """Its journal as after that many days of opening and closing."""
    for _ in range(opens):
        for verb, ids in _STEPS.items():
            steps = tuple(Step(each, each, "") for each in ids)
            plan = Plan(verb, name, steps, {"image": "0" * 16} if verb == "open" else {})
            journal = Journal(paths.journal(name))
            run(plan, {each: lambda: None for each in ids}, journal, _Silent())


def _multiply(paths: Paths, source: str, name: str) -> None:
    records = Records(paths, Path(__file__).parents[1] / "profiles")
    records.save(replace(records.load(source), name=name, id=uuid4()))
    paths.journal(name).write_bytes(paths.journal(source).read_bytes())
    # Holes stay holes, and nobody waits for PBKDFs.
    copy = ("cp", "--sparse=always", str(paths.volume(source)), str(paths.volume(name)))
    subprocess.run(copy, check=True)


def measure(session: Session, name: str, number: int) -> Sample:
    """One run of a command, from its start to its end."""
    program = [sys.executable, "-c", "pass"] if name == BASELINE else [_mailbox(), *COMMANDS[name]]
    sample = Sample("cli", name, number)
    begun = time.monotonic()
    subprocess.run(program, env=session.env, stdout=subprocess.DEVNULL, check=True)
    sample.add("whole", time.monotonic() - begun)
    return sample


def _mailbox() -> str:
    return str(Path(sys.executable).parent / "mailbox")


def finding(samples: Sequence[Sample], mailboxes: int, opens: int) -> Finding:
    """Medians and ends, beside an interpreter that does nothing, in the same run."""
    baseline = _figure(samples, BASELINE)
    rows, figures = [], []
    for name in (BASELINE, *COMMANDS):
        found = _figure(samples, name)
        ratio = found.median / baseline.median
        ends = f"{found.least:.3f} to {found.most:.3f}"
        rows.append((name, f"{found.median:.3f}", ends, f"{ratio:.1f}"))
        if name in KEYS:
            why = f"{ratio:.1f} times what the interpreter alone takes ({baseline.median:.3f} s)."
            figures.append(Measured(KEYS[name], found.median, found.least, found.most, why))
    table = Table(
        "Commands that only look",
        ("Command", "s", "Ends", "Ratio to the first"),
        tuple(rows),
        f"{mailboxes} mailboxes, each opened and closed {opens} times; {len(samples) // len(rows)} "
        "rounds.",
    )
    return Finding("cli", computer.facts(), figures, (table,), [vars(each) for each in samples])


def _figure(samples: Sequence[Sample], name: str) -> Figure:
    found = figure(of_kind(samples, "cli", name), "whole")
    assert found is not None
    return found


def main() -> int:
    """The entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cli", description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=200)
    parser.add_argument("--opens", type=int, default=100, help="in each mailbox's journal")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, metavar="FILE")
    said = parser.parse_args()
    names = (BASELINE, *COMMANDS)
    with (
        tempfile.TemporaryDirectory(prefix="mbb-", dir="/var/tmp") as root,
        Session(Path(root)) as session,
    ):
        make_mailboxes(session, said.mailboxes, said.opens)
        for name in names:
            measure(session, name, 0)  # starts libvirtd and fills caches; not counted
        samples = [measure(session, n, r) for r in range(1, said.rounds + 1) for n in names]
    found = finding(samples, said.mailboxes, said.opens)
    for row in found.tables[0].rows:
        print(f"  {row[0]:<22} {row[1]:>7} s  ({row[2]}), ratio {row[3]}")
    print(goals.report(found.figures))
    if said.json is not None:
        found.write(said.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
