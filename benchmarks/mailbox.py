"""The measured half: `mailbox open` from nothing to the synchronised inbox, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import question
from benchmarks.samples import Sample
from benchmarks.stock import Hardware
from demo.correspondent import Person
from demo.mailserver import CUSTOMER, MailServer
from demo.main import onboard_arguments
from demo.session import Session

Json = dict[str, Any]

NAME = "benchmark"
# What the command calls its steps, and what is reached at the end of each.
_STEPS = {
    "verify": "image verified",
    "check": "volume looked at",
    "start": "machine started",
    "warden": "warden started",
    "gather": "secrets taken",
    "channel": "channel answers",
    "plug": "volume plugged in",
}
# Those of an open that goes on where the machine was suspended.
_RESUME_STEPS = {
    "verify": "image verified",
    "check": "volume looked at",
    "keys": "keys taken",
    "restore": "memory read back",
    "consume": "state destroyed",
    "warden": "warden started",
    "channel": "channel answers",
    "wake": "mail client awake",
}
_PHASES = {
    "home": "volume mounted",
    "client-started": "mail client starts",
    "account": "account set up",
    "keys": "keys set up",
}
# The line of progress from which on there is somebody to ask.
_CLIENT_STARTED = "client-started"
_PROCESSES = {"channel.py": "channel program starts", "Xorg": "X server"}


class MailboxError(Exception):
    """The mailbox did not do what was asked of it."""


class Mailbox:
    """One mailbox of the demonstration's customer."""

    def __init__(self, session: Session, server: MailServer, own: Person, other: Person) -> None:
        self._session = session
        self._server = server
        self._arguments = onboard_arguments(server, own, other)

    def renew(self) -> None:
        """A mailbox that was never opened: its volume is empty."""
        self._remove()
        password = self._server.password(CUSTOMER).encode() + b"\n"
        self._session.mailbox("onboard", NAME, "--reuse-name", *self._arguments, input=password)

    def _remove(self) -> None:
        """Shred it, if there is one."""
        listed = json.loads(self._session.mailbox("list", "--json").stdout)
        if any(entry["name"] == NAME for entry in listed):
            self._session.mailbox("shred", NAME, "--yes")

    def measure(self, kind: str, number: int, newest: str) -> Sample:
        """Open, wait for the inbox, close."""
        sample = Sample("mailbox", kind, number)
        opening = _Opening(self._session, sample, newest)
        opening.run()
        self._add_processes(sample, opening.begun)
        time.sleep(5)  # a person reads before closing
        sample.add("close", self._session.mailbox("close", NAME).seconds)
        return sample

    def measure_suspended(self, number: int, deliver: Callable[[], str]) -> Sample:
        """Suspend an open mailbox, let a mail arrive, open it, wait for the inbox."""
        self._session.mailbox("open", NAME, "--headless")
        sample = Sample("mailbox", "suspended", number)
        time.sleep(5)
        sample.add("close", self._session.mailbox("suspend", NAME).seconds)
        _Opening(self._session, sample, deliver()).run()
        self._session.mailbox("close", NAME, "--shutdown")
        return sample

    def hardware(self) -> Hardware:
        """What the machine of the open mailbox has, asked of libvirt."""
        virsh = ("virsh", "-c", "qemu:///session", "--quiet")
        domain = self._session.run([*virsh, "list", "--name"]).stdout.split()[0].decode()
        xml = self._session.run([*virsh, "dumpxml", domain]).stdout
        root = ElementTree.fromstring(xml)
        kvm = root.get("type") == "kvm"
        memory = int(root.findtext("memory") or 0) * 1024
        cpus = int(root.findtext("vcpu") or 0)
        return Hardware("kvm" if kvm else "tcg", "host" if kvm else "max", memory, cpus)

    def learn_hardware(self) -> Hardware:
        """Open once to see what its machine gets; also the one open that warms the caches."""
        self._session.mailbox("open", NAME, "--headless")
        try:
            return self.hardware()
        finally:
            self._session.mailbox("close", NAME)

    def _add_processes(self, sample: Sample, begun: float) -> None:
        ran = self._session.mailbox(
            "run", NAME, "--", "python3", "-", input=question.program(["processes"])
        )
        answer = json.loads(ran.stdout)
        kernel = time.monotonic() - begun - answer["uptime"]
        sample.add("kernel starts", kernel)
        for name, title in _PROCESSES.items():
            if name in answer["processes"]:
                sample.add(title, kernel + answer["processes"][name])


class _Opening:
    """One `mailbox open` and, beside it, the question that waits inside its Thunderbird."""

    def __init__(self, session: Session, sample: Sample, newest: str) -> None:
        self.begun = 0.0
        self._session = session
        self._sample = sample
        self._program = question.program(["window", "inbox"], newest)
        self._asking: threading.Thread | None = None
        self._failed = ""
        self._first_line = 0.0

    def run(self) -> None:
        """Open and wait for the answers."""
        reader, writer = os.pipe()
        listening = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        listening.start()
        self.begun = time.monotonic()
        try:
            ran = self._session.mailbox("open", NAME, "--headless", "--json", "-v", stderr=writer)
            self._sample.add("open returns", self._since())
        finally:
            os.close(writer)
            listening.join(10)
        facts = json.loads(ran.stdout)["facts"]
        self._add_facts(facts)
        if self._asking is None and facts["resumed"]:
            self._begin_to_ask()  # its mail client never ended
        if self._asking is None:
            raise MailboxError("`mailbox open` did not say when the mail client started")
        self._asking.join(question.DEADLINE_S)
        if self._failed or "inbox synchronised" not in self._sample.seconds:
            raise MailboxError(f"Thunderbird did not answer: {self._failed}")

    def _since(self) -> float:
        return time.monotonic() - self.begun

    def _listen(self, reader: int) -> None:
        """Follow the command's progress; ask as soon as there is somebody to ask."""
        with os.fdopen(reader, errors="replace") as lines:
            for line in lines:
                self._first_line = self._first_line or self._since()
                if line.strip() == _CLIENT_STARTED and self._asking is None:
                    self._begin_to_ask()

    def _begin_to_ask(self) -> None:
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def _ask(self) -> None:
        mailbox = Path(sys.executable).parent / "mailbox"
        command = [str(mailbox), "run", NAME, "--", "python3", "-"]
        with subprocess.Popen(
            command,
            env=self._session.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as asking:
            assert asking.stdin is not None and asking.stdout is not None
            assert asking.stderr is not None
            asking.stdin.write(self._program)
            asking.stdin.close()
            for line in asking.stdout:
                self._add_answer(json.loads(line)["question"])
            self._failed = asking.stderr.read().decode(errors="replace")[-1500:]

    def _add_answer(self, name: str) -> None:
        self._sample.add({"inbox": "inbox synchronised"}.get(name, name), self._since())

    def _add_facts(self, facts: Mapping[str, Any]) -> None:
        """The command's own times; its first line is written when the first step begins."""
        at = self._first_line
        self._sample.add("command begins", at)
        steps = _RESUME_STEPS if facts["resumed"] else _STEPS
        for step, title in steps.items():
            at += facts["seconds"].get(step, 0.0)
            self._sample.add(title, at)
        for phase, title in _PHASES.items():
            if phase in facts["phases"]:
                self._sample.add(title, at + facts["phases"][phase])
        self._sample.warnings += [warning["code"] for warning in facts.get("warnings", [])]
