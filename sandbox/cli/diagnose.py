"""`doctor`: hands the adapters' facts to the probes and shows what they found."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sandbox.cli.output import Printer
from sandbox.host.probes import kvm
from sandbox.host.probes.collect import Sources, collect
from sandbox.host.probes.facts import KvmProof
from sandbox.host.probes.finding import Finding
from sandbox.host.probes.machines import candidates
from sandbox.host.probes.sleep import SleepFacts
from sandbox.model.errors import Exit, MailboxError
from sandbox.state.config import load_config
from sandbox.state.paths import Paths, find_paths

_MARKS = {"ok": "ok", "warning": "WARNING", "problem": "PROBLEM", "unknown": "unknown"}


def prove_kvm(paths: Paths, *, fresh: bool = False) -> KvmProof:
    """Whether KVM works here, proven with the kernel of an image where there is one."""
    from sandbox.host import images

    found = images.list_images(paths.images)
    kernel = found[0].kernel if found else None
    return kvm.prove_kvm(paths.state / "acceleration.json", kernel=kernel, fresh=fresh)


def collect_findings(printer: Printer) -> list[Finding]:
    """All findings on this computer."""
    from sandbox.host import images, vault
    from sandbox.host.libvirt import connection

    paths = find_paths(os.environ)
    sources = Sources(
        data_folder=paths.data,
        connect_libvirt=connection.facts,
        keyring_facts=vault.facts,
        prove_kvm=lambda: prove_kvm(paths, fresh=True),
        sleep_facts=lambda: sleep_facts(paths),
        warm_failures=lambda: images.warm_failures(paths.images),
        libvirt_uris=candidates(os.environ, os.geteuid()),
        config_home=Path(config) if (config := os.environ.get("XDG_CONFIG_HOME")) else None,
    )
    return collect(sources, printer.step)


def sleep_facts(paths: Paths) -> SleepFacts:
    """What becomes of open mailboxes before a sleep, and how long that has taken."""
    from sandbox.host import logind
    from sandbox.lifecycle.sleep import slowest

    try:
        wish = load_config(paths).at_sleep
    except MailboxError as error:
        return SleepFacts("", f"{error.brief} {error.details}")
    try:
        delay = logind.longest_delay()
    except MailboxError:
        delay = None
    return SleepFacts(wish, delay_s=delay, took_s=slowest(paths, wish))


def report(printer: Printer, findings: list[Finding]) -> int:
    """Show the findings; the exit code says whether there is a problem."""
    problems = sum(finding.level == "problem" for finding in findings)
    if printer.as_json:
        document: dict[str, Any] = {"ok": not problems, "findings": [asdict(f) for f in findings]}
        printer.document(document)
    else:
        _print(printer, findings)
    return Exit.HOST if problems else Exit.OK


def _print(printer: Printer, findings: list[Finding]) -> None:
    for finding in findings:
        printer.line(f"{_MARKS[str(finding.level)]:<8} {finding.title}")
        printer.line(f"         {finding.detail}")
        if finding.remedy:
            printer.line(f"         -> {finding.remedy}")
    counts = Counter(str(finding.level) for finding in findings)
    printer.line(", ".join(f"{counts[level]} {level}" for level in _MARKS if counts[level]))
