"""From flags, a file or answers on a terminal to a checked wish; every problem reported at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from sandbox.cli.accounts import account_of, certificates_in
from sandbox.cli.answers import Answers, merge
from sandbox.cli.checker import Checker
from sandbox.lifecycle.onboard import KeyChoice, Wish
from sandbox.model import names
from sandbox.model.account import Account, opened_by_own
from sandbox.model.custody import HeldBy, Where
from sandbox.model.endpoints import parse_server
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.offers import Source
from sandbox.model.profile import Settings, client_problem


def ask_missing(answers: Answers, discover: Callable[[str], Answers] | None) -> Answers:
    """Ask on the terminal for what cannot be done without; without `discover`, ask for servers."""
    if not answers.address:
        address = _ask("Mail address", _or_problem(names.address_problem))
        answers = replace(answers, address=address)
    if answers.display_name is None:
        name = _ask("Your name, as recipients see it", _or_problem(names.text_problem), "")
        answers = replace(answers, display_name=name)
    if discover:
        answers = discover_missing(answers, discover)
    if not answers.imap:
        answers = replace(answers, imap=_ask("IMAP server (HOST[:PORT])", _server_text(993)))
    if not answers.smtp:
        answers = replace(answers, smtp=_ask("SMTP server (HOST[:PORT])", _server_text(465)))
    if not (answers.key or answers.key_file or answers.generate_key):
        answers = _ask_key(answers)
    return answers


def _ask(question: str, check: Callable[[str], str], default: str | None = None) -> str:
    """Ask until the answer passes; click shows the reason why one does not."""

    def checked(text: str) -> str:
        try:
            return check(text.strip())
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    shown = bool(default)
    return str(
        click.prompt(question, default=default, value_proc=checked, show_default=shown, err=True)
    )


def _or_problem(problem_of: Callable[[str], str | None]) -> Callable[[str], str]:
    def check(text: str) -> str:
        problem = problem_of(text)
        if problem:
            raise ValueError(problem)
        return text

    return check


def _server_text(port: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        parse_server(text, port)
        return text

    return check


def discover_missing(answers: Answers, discover: Callable[[str], Answers]) -> Answers:
    """Fill in the servers as found from the address; what was said stays."""
    known = answers.imap and answers.smtp
    if known or not answers.address or names.address_problem(answers.address):
        return answers
    return merge(answers, discover(answers.address))


def _ask_key(answers: Answers) -> Answers:
    question = "OpenPGP key: a fingerprint from your GnuPG, `new`, or nothing for none"
    said = _ask(question, _key_text, "")
    if said == "new":
        return replace(answers, generate_key=True)
    return replace(answers, key=said or None)


def _key_text(text: str) -> str:
    return text.lower() if text.lower() in ("", "new") else names.parse_fingerprint(text)


def check_answers(
    name: str,
    answers: Answers,
    template: Callable[[str], Settings],
    *,
    find_servers: Callable[[Answers], Answers] | None,
    password: Callable[[], str],
    dav_password: Callable[[Account], str],
    ask: Callable[[str], str],
    check_servers: bool,
    reuse_name: bool,
) -> Wish:
    """The wish, or an InvalidInputError with everything that is wrong at once.

    `find_servers` looks for the servers that were not named; not for an input that is refused.
    """
    checker = Checker()
    checker.check("NAME", name, names.name_problem)
    settings = _settings(checker, answers, template)
    key = _key(checker, answers, ask)
    correspondents = tuple(_correspondent(checker, each) for each in answers.correspondents)
    colour = checker.parse("--colour", answers.colour, names.parse_colour, "")
    refused = bool(checker.problems)
    if find_servers and not refused:
        answers = find_servers(answers)
    found = not (find_servers and refused)
    account = account_of(checker, answers, to_find=check_servers, need_servers=found)
    if checker.problems:
        hint = "`mailbox onboard --help` explains each."
        raise InvalidInputError(
            "The input", checker.problems, meaning="nothing was written", resolution=hint
        )
    word, own = password(), dav_password(account)
    return Wish(
        name=name,
        template=answers.template or "default",
        account=opened_by_own(account) if own else account,
        settings=settings,
        password=word,
        dav_password=own,
        key=key,
        correspondents=tuple(each for each in correspondents if each is not None),
        colour=colour,
        check_servers=check_servers,
        reuse_name=reuse_name,
    )


def _settings(checker: Checker, answers: Answers, template: Callable[[str], Settings]) -> Settings:
    chosen = answers.template or "default"
    try:
        settings = template(chosen)
    except MailboxError as error:
        checker.problems.append(f"--template: {error.brief} {error.resolution}")
        settings = template("default")
    size = checker.parse("--size", answers.size, names.parse_size, settings.volume_size)
    policy = replace(settings.policy, marionette=bool(answers.marionette))
    client = answers.client or settings.client
    checker.check("--client", client, client_problem)
    where = checker.parse("--custody", answers.custody, Where, settings.custody.where)
    holder = checker.parse("--holder", answers.holder, HeldBy, settings.custody.holder)
    custody = replace(settings.custody, where=where, holder=holder)
    checker.check("--holder", "", lambda _: custody.problem())
    if holder is HeldBy.USER and (answers.key_file or answers.generate_key):
        checker.problems.append("--holder: user takes a key of your own GnuPG, named with --key")
    return replace(settings, client=client, volume_size=size, policy=policy, custody=custody)


def _key(checker: Checker, answers: Answers, ask: Callable[[str], str]) -> KeyChoice:
    said = [answers.key, answers.key_file, answers.generate_key]
    if sum(map(bool, said)) > 1:
        checker.problems.append("--key, --key-file, --generate-key: only one of them")
    return KeyChoice(
        fingerprint=checker.parse("--key", answers.key, names.parse_fingerprint, None),
        file=checker.read("--key-file", answers.key_file),
        generate=bool(answers.generate_key),
        ask=ask,
    )


def _correspondent(checker: Checker, said: str) -> str | Source | None:
    try:
        return names.parse_fingerprint(said)
    except ValueError:
        pass
    if Path(said).expanduser().exists():
        content = checker.read("--correspondent", said)
        return Source(Path(said).name, content or b"", trusted=True)
    checker.problems.append(f"--correspondent: {said!r} is neither a fingerprint nor a file")
    return None


def read_file(place: str, path: str | None) -> bytes | None:
    """The content of a file that was named; raises InvalidInputError when it cannot be read."""
    checker = Checker()
    content = checker.read(place, path)
    if checker.problems:
        raise InvalidInputError("The input", checker.problems)
    return content


def authorities_in(place: str, content: bytes | None) -> tuple[str, ...]:
    """The certificates of a PEM file; raises InvalidInputError when it has none."""
    checker = Checker()
    found = certificates_in(checker, content, place)
    if checker.problems:
        raise InvalidInputError("The input", checker.problems)
    return found


def passphrase_source(
    descriptor: int | None, what: str = "Passphrase of the OpenPGP key"
) -> Callable[[str], str]:
    """How the passphrase of a key is asked for: from a descriptor, else with pinentry."""
    if descriptor is not None:

        def read(_fingerprint: str) -> str:
            with os.fdopen(descriptor, "r", closefd=False) as source:
                return source.readline().rstrip("\r\n")

        return read

    def ask(fingerprint: str) -> str:
        from sandbox.host.askpass import ask_with_pinentry

        tty = os.ttyname(sys.stdin.fileno()) if sys.stdin.isatty() else None
        return ask_with_pinentry(f"{what}\n{fingerprint}", tty)

    return ask
