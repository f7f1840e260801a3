"""The measured half: `mailbox open` from nothing to the synchronised inbox, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import question
from benchmarks.samples import Sample
from benchmarks.scene import Scene
from benchmarks.stock import Hardware
from demo.mailserver import CUSTOMER
from demo.main import onboard_arguments
from demo.session import Ran, Session

Json = dict[str, Any]

NAME = "benchmark"
# What is reached at the end of each step of the command; another step is called by its own name.
_STEPS = {
    "verify": "image verified",
    "check": "volume looked at",
    "start": "machine started",
    "warden": "warden started",
    "gather": "secrets taken",
    "channel": "channel answers",
    "plug": "volume plugged in",
    "provision": "set up",
    "keys": "keys taken",
    "restore": "memory read back",
    "consume": "state destroyed",
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

    def __init__(self, scene: Scene, name: str = NAME) -> None:
        self.name = name
        self._scene = scene
        self._session = scene.session

    def renew(self, paper: Path | None = None) -> Ran:
        """A mailbox that was never opened: its volume is empty; returns how it was onboarded.

        Its recovery code is written down on `paper`; without one, none is made.
        """
        self.remove()
        scene = self._scene
        people = (scene.customer, scene.partner)
        arguments = onboard_arguments(scene.server, *people, paper=paper)
        password = scene.server.password(CUSTOMER).encode() + b"\n"
        command = ("onboard", self.name, "--reuse-name", "--json", *arguments)
        return self._session.mailbox(*command, input=password)

    def remove(self) -> None:
        """Shred it, if there is one."""
        listed = json.loads(self._session.mailbox("list", "--json").stdout)
        if any(entry["name"] == self.name for entry in listed):
            self._session.mailbox("shred", self.name, "--yes")

    def open(self) -> Json:
        """Open it without a window; what the command tells."""
        ran = self._session.mailbox("open", self.name, "--headless", "--json")
        facts: Json = json.loads(ran.stdout)["facts"]
        return facts

    def shut(self) -> float:
        """Close it by shutting its machine down; in how many seconds."""
        return self._session.mailbox("close", self.name, "--shutdown").seconds

    def suspend(self) -> Ran:
        """Suspend it."""
        return self._session.mailbox("suspend", self.name, "--json")

    def run(self, program: bytes, *, root: bool = False) -> str:
        """Run a Python program in its machine; returns what it prints."""
        flags = ("--root",) if root else ()
        command = ("run", self.name, *flags, "--", "python3", "-")
        return self._session.mailbox(*command, input=program).text

    def measure(self, kind: str, number: int, newest: str, *, warm: bool) -> Sample:
        """Open with a boot or from the warm state, wait for the inbox, close."""
        sample = Sample("mailbox", kind, number)
        opening = _Opening(self._session, sample, newest)
        if warm:
            facts = opening.run()
        else:
            with without_warm_state(self._scene.image):
                facts = opening.run()
        if facts["warm"] != warm:
            raise MailboxError(f"{kind}: warm is {facts['warm']} ({facts['cold_reason']})")
        self._add_processes(sample, opening.begun)
        time.sleep(5)  # a person reads before closing
        sample.add("close", self.shut())
        return sample

    def measure_suspended(self, number: int, deliver: Callable[[], str]) -> Sample:
        """Suspend an open mailbox, let a mail arrive, open it, wait for the inbox."""
        self.open()
        sample = Sample("mailbox", "suspended", number)
        time.sleep(5)
        ran = self.suspend()
        sample.add("close", ran.seconds)
        for step, seconds in json.loads(ran.stdout)["facts"]["seconds"].items():
            sample.add(f"suspend: {step}", seconds)
        facts = _Opening(self._session, sample, deliver()).run()
        if not facts["resumed"]:
            raise MailboxError("the suspended machine did not go on")
        self.shut()
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
        self.open()
        try:
            return self.hardware()
        finally:
            self.shut()

    def _add_processes(self, sample: Sample, begun: float) -> None:
        answer = json.loads(self.run(question.program(["processes"])))
        kernel = time.monotonic() - begun - answer["uptime"]
        sample.add("kernel starts", kernel)
        for name, title in _PROCESSES.items():
            if name in answer["processes"]:
                sample.add(title, kernel + answer["processes"][name])


@contextmanager
def without_warm_state(image: Path) -> Iterator[None]:
    """Machines of this image boot inside the `with` block."""
    notes = list(image.glob("warm-*.json"))
    for note in notes:
        note.rename(note.with_suffix(".set-aside"))
    try:
        yield
    finally:
        for note in notes:
            note.with_suffix(".set-aside").rename(note)


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

    def run(self) -> Json:
        """Open and wait for the answers; returns what the command tells."""
        trace = self._session.root / "trace.json"
        command = ("open", NAME, "--headless", "--json", "-v", "--trace", str(trace))
        reader, writer = os.pipe()
        listening = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        listening.start()
        self.begun = time.monotonic()
        try:
            ran = self._session.mailbox(*command, stderr=writer)
            self._sample.add("open returns", self._since())
        finally:
            os.close(writer)
            listening.join(10)
        facts: Json = json.loads(ran.stdout)["facts"]
        self._sample.warnings += [warning["code"] for warning in facts.get("warnings", [])]
        self._add_trace(json.loads(trace.read_text()))
        if self._asking is None and facts["resumed"]:
            self._begin_to_ask()  # its mail client never ended
        if self._asking is None:
            raise MailboxError("`mailbox open` did not say when the mail client started")
        self._asking.join(question.DEADLINE_S)
        if self._failed or "inbox synchronised" not in self._sample.seconds:
            raise MailboxError(f"Thunderbird did not answer: {self._failed}")
        return facts

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

    def _add_trace(self, trace: Mapping[str, Any]) -> None:
        """The command's own times; its first line is written when the first step begins."""
        self._sample.add("command begins", self._first_line)
        for step in trace["steps"]:
            begun = self._first_line + step["begin"]
            name = _STEPS.get(step["step"], step["step"])
            self._sample.add(name, begun + step["seconds"])
            if step["step"] == "provision":
                for phase, title in _PHASES.items():
                    if phase in trace["phases"]:
                        self._sample.add(title, begun + trace["phases"][phase])
