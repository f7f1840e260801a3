"""Asks the user whether a machine may use a key: a notification, else the user's pinentry."""

from __future__ import annotations

from sandbox.host import desktop, process
from sandbox.host.custody.holder import ANSWER_S
from sandbox.model.errors import MailboxError


def ask_user(title: str, question: str, tty: str | None) -> bool | None:
    """The user's answer; None when nobody answered, or nobody can be asked here."""
    if desktop.has_display():
        answer = _notification(title, question)
        if answer is not None:
            return answer
    return _pinentry(title, question, tty)


def _notification(title: str, question: str) -> bool | None:
    # notify-send(1): with --action it waits, and prints the name of the one that was chosen.
    argv = ["notify-send", "--app-name=mailbox", "--urgency=critical", "--wait"]
    argv += ["--action=allow=Allow", "--action=deny=Deny", "--", title, question]
    try:
        done = process.run(argv, check=False, timeout=ANSWER_S)
    except MailboxError:
        return None
    return {b"allow": True, b"deny": False}.get(done.stdout.strip())


def _pinentry(title: str, question: str, tty: str | None) -> bool | None:
    if not (tty or desktop.has_display()):
        return None
    options = [f"OPTION ttyname={tty}"] if tty else []
    text = f"{title}\n{question}".replace("%", "%25").replace("\n", "%0A")
    timeout = f"SETTIMEOUT {int(ANSWER_S)}"
    lines = [*options, timeout, f"SETDESC {text}", "SETOK Allow", "SETCANCEL Deny", "CONFIRM"]
    try:
        done = process.run(
            ["pinentry"], input="\n".join([*lines, "BYE", ""]).encode(), check=False,
            timeout=ANSWER_S + 5,
        )  # fmt: skip
    except MailboxError:
        return None
    answers = [line for line in done.stdout.splitlines() if line.startswith((b"OK", b"ERR"))]
    # One answer a line after the greeting; the last but one belongs to CONFIRM.
    verdict = answers[-2] if len(answers) > len(lines) else b""
    if verdict.startswith(b"OK"):
        return True
    # 99 is canceled, 114 not confirmed (gpg-error(1)); a timeout or no terminal is no answer.
    code = int(verdict.split()[1]) & 0xFFFF if verdict.startswith(b"ERR ") else 0
    return False if code in (99, 114) else None
