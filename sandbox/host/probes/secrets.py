"""Where secrets rest on this computer: the keyring, GnuPG, and how it asks for passphrases."""

from __future__ import annotations

from sandbox.host.probes.facts import KeyringFacts
from sandbox.host.probes.finding import Verdict, ok, problem, unknown, warning
from sandbox.host.probes.machines import version_in
from sandbox.host.probes.system import System

GNUPG_MINIMUM = (2, 2, 27)

_KEYRING_REMEDY = (
    "sudo apt-get install gnome-keyring, then log in to the desktop; without a desktop run "
    "mailbox inside `dbus-run-session` with `gnome-keyring-daemon --unlock`"
)
_INSTALL_PINENTRY = (
    "sudo apt-get install pinentry-gnome3 (on a desktop) or pinentry-curses (in a terminal)"
)


def judge_keyring(facts: KeyringFacts) -> Verdict:
    """Volume keys rest in the keyring, so only a safe and unlocked one will do."""
    if ".fail." in facts.backend:
        return problem("No keyring is running on this computer", _KEYRING_REMEDY)
    if not facts.safe:
        return problem(
            f"The keyring backend {facts.backend} does not protect what it stores", _KEYRING_REMEDY
        )
    if facts.locked:
        return warning(
            f"The keyring {facts.backend} is locked",
            "Unlock it: log in to the desktop, or open it in Passwords and Keys (seahorse)",
        )
    if facts.error is not None:
        return problem(f"The keyring does not work: {facts.error}", _KEYRING_REMEDY)
    return ok(f"{facts.backend}, unlocked")


def gnupg(system: System) -> Verdict:
    """GnuPG and its agent."""
    if system.which("gpg") is None:
        return problem("GnuPG is not installed", "sudo apt-get install gnupg")
    if system.which("gpg-agent") is None:
        return problem("gpg-agent is not installed", "sudo apt-get install gpg-agent")
    return judge_gnupg(system.output(["gpg", "--version"]))


def judge_gnupg(output: str) -> Verdict:
    """`gpg --version` against the oldest one that is known to work."""
    version = version_in(output)
    if version is None:
        return unknown("GnuPG does not say its version")
    shown = ".".join(map(str, version))
    if version < GNUPG_MINIMUM:
        least = ".".join(map(str, GNUPG_MINIMUM))
        return problem(f"GnuPG {shown} is older than {least}", "sudo apt-get install gnupg")
    return ok(f"GnuPG {shown} with gpg-agent")


def pinentry_path(components: str) -> str | None:
    """The passphrase program in the output of `gpgconf --list-components`."""
    for line in components.splitlines():
        name, _, rest = line.partition(":")
        if name == "pinentry":
            return rest.rpartition(":")[2].replace("%3a", ":").replace("%25", "%") or None
    return None


def pinentry(system: System) -> Verdict:
    """The program that asks for passphrases of keys; without one only bare keys work."""
    configured = None
    if system.which("gpgconf"):
        configured = pinentry_path(system.output(["gpgconf", "--list-components"]))
    path = configured or system.which("pinentry")
    if path is None or not system.exists(path):
        return warning(
            "No pinentry: GnuPG cannot ask for the passphrase of a key", _INSTALL_PINENTRY
        )
    return ok(f"GnuPG asks for passphrases with {path}")
