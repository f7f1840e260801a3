"""From flags, a file or answers on a terminal to a checked wish; every problem reported at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from sandbox.lifecycle.onboard import KeyChoice, Wish
from sandbox.model import names
from sandbox.model.custody import Where
from sandbox.model.endpoints import Endpoint, Security, parse_connect, parse_server
from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.model.profile import Account, Settings, client_problem
from sandbox.model.schema import Reader
from sandbox.state.records import parse_toml

T = TypeVar("T")


@dataclass(frozen=True)
class Answers:
    """What was said about a new mailbox, unchecked; None is not said."""

    template: str | None = None
    client: str | None = None
    address: str | None = None
    display_name: str | None = None
    login: str | None = None
    imap: str | None = None
    smtp: str | None = None
    signature: str | None = None
    ca: str | None = None
    key: str | None = None
    key_file: str | None = None
    generate_key: bool | None = None
    size: str | None = None
    colour: str | None = None
    correspondents: tuple[str, ...] = ()
    connect_to: tuple[str, ...] = ()
    custody: str | None = None
    marionette: bool | None = None


def from_file(path: str) -> Answers:
    """Answers from a TOML file whose entries are named as the flags (with underscores)."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInputError("The input", [f"--from: {path}: {error.strerror}"]) from None
    reader = Reader(parse_toml(content, f"The file {path}"))
    said: dict[str, Any] = {}
    for each in fields(Answers):
        kind = _kind(each.name)
        if reader.has(each.name):
            value = reader.get(each.name, kind)
            said[each.name] = tuple(map(str, value)) if isinstance(value, list) else value
    reader.finish()
    if reader.problems:
        raise InvalidInputError(f"The file {path}", reader.problems)
    return Answers(**said)


def _kind(name: str) -> type[Any]:
    if name in ("correspondents", "connect_to"):
        return list
    return bool if name in ("generate_key", "marionette") else str


def merge(flags: Answers, file: Answers) -> Answers:
    """Flags go before the file."""
    chosen = {
        each.name: getattr(flags, each.name) or getattr(file, each.name) for each in fields(Answers)
    }
    return Answers(**chosen)


def ask_missing(answers: Answers, discover: Callable[[str], Answers] | None) -> Answers:
    """Ask on the terminal for what cannot be done without; without `discover`, ask for servers."""
    if not answers.address:
        address = _ask("Mail address", _or_problem(names.address_problem))
        answers = replace(answers, address=address)
    if answers.display_name is None:
        name = _ask("Your name, as recipients see it", _or_problem(names.text_problem), "")
        answers = replace(answers, display_name=name)
    if discover and not (answers.imap and answers.smtp):
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
    if not answers.address or names.address_problem(answers.address):
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


@dataclass
class _Checker:
    """Gathers the problems of one input."""

    problems: list[str] = field(default_factory=list)

    def parse(self, place: str, text: str | None, parse: Callable[[str], T], default: T) -> T:
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{place}: {error}")
            return default

    def check(self, place: str, text: str, problem_of: Callable[[str], str | None]) -> str:
        problem = problem_of(text)
        if problem:
            self.problems.append(f"{place}: {problem}")
        return text

    def read(self, place: str, path: str | None) -> bytes | None:
        if path is None:
            return None
        try:
            return Path(path).expanduser().read_bytes()
        except OSError as error:
            self.problems.append(f"{place}: {path}: {error.strerror}")
            return None

    def require(self, place: str, value: object) -> None:
        if not value:
            self.problems.append(f"{place}: is needed")


def check_answers(
    name: str,
    answers: Answers,
    template: Callable[[str], Settings],
    *,
    password: Callable[[], str],
    ask: Callable[[str], str],
    check_servers: bool,
    reuse_name: bool,
) -> Wish:
    """The wish, or an InvalidInputError with everything that is wrong at once."""
    checker = _Checker()
    checker.check("NAME", name, names.name_problem)
    settings = _settings(checker, answers, template)
    account = _account(checker, answers)
    key = _key(checker, answers, ask)
    correspondents = tuple(_correspondent(checker, each) for each in answers.correspondents)
    colour = checker.parse("--colour", answers.colour, names.parse_colour, "")
    if checker.problems:
        hint = "`mailbox onboard --help` explains each."
        raise InvalidInputError(
            "The input", checker.problems, meaning="nothing was written", resolution=hint
        )
    return Wish(
        name=name,
        template=answers.template or "default",
        account=account,
        settings=settings,
        password=password(),
        key=key,
        correspondents=tuple(each for each in correspondents if each is not None),
        colour=colour,
        check_servers=check_servers,
        reuse_name=reuse_name,
    )


def _settings(checker: _Checker, answers: Answers, template: Callable[[str], Settings]) -> Settings:
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
    custody = replace(settings.custody, where=where)
    return replace(settings, client=client, volume_size=size, policy=policy, custody=custody)


def _account(checker: _Checker, answers: Answers) -> Account:
    address = answers.address or ""
    checker.require("--address", address)
    if address:
        checker.check("--address", address, names.address_problem)
    for place, said in (("--imap", answers.imap), ("--smtp", answers.smtp)):
        checker.require(place, said)
    detours = [
        checker.parse("--connect-to", each, parse_connect, None) for each in answers.connect_to
    ]
    known = [each for each in detours if each is not None]
    imap = _endpoint(checker, "--imap", answers.imap, 993, known)
    smtp = _endpoint(checker, "--smtp", answers.smtp, 465, known)
    for host, port, *_ in known:
        if (host, port) not in ((imap.host, imap.port), (smtp.host, smtp.port)):
            checker.problems.append(f"--connect-to: {host}:{port} is none of the servers")
    authorities = checker.read("--ca", answers.ca)
    return Account(
        address=address,
        display_name=checker.check(
            "--display-name", answers.display_name or "", names.text_problem
        ),
        login=checker.check("--login", answers.login or address, names.text_problem),
        imap=imap,
        smtp=smtp,
        signature=checker.check("--signature", answers.signature or "", names.signature_problem),
        ca=_certificates(checker, authorities),
    )


def _endpoint(
    checker: _Checker,
    place: str,
    text: str | None,
    port: int,
    detours: list[tuple[str, int, str, int]],
) -> Endpoint:
    nowhere = Endpoint("", 0, Security.TLS)
    endpoint = checker.parse(place, text, lambda said: parse_server(said, port), nowhere)
    for host, named_port, target, target_port in detours:
        if (host, named_port) == (endpoint.host, endpoint.port):
            return replace(endpoint, connect=(target, target_port))
    return endpoint


def _certificates(checker: _Checker, content: bytes | None, place: str = "--ca") -> tuple[str, ...]:
    if content is None:
        return ()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    text = content.decode("ascii", errors="replace")
    found = [part.partition(end)[0] for part in text.split(begin)[1:]]
    if not found:
        checker.problems.append(f"{place}: the file holds no certificate in PEM form")
    return tuple(f"{begin}{part}{end}\n" for part in found)


def _key(checker: _Checker, answers: Answers, ask: Callable[[str], str]) -> KeyChoice:
    said = [answers.key, answers.key_file, answers.generate_key]
    if sum(map(bool, said)) > 1:
        checker.problems.append("--key, --key-file, --generate-key: only one of them")
    return KeyChoice(
        fingerprint=checker.parse("--key", answers.key, names.parse_fingerprint, None),
        file=checker.read("--key-file", answers.key_file),
        generate=bool(answers.generate_key),
        ask=ask,
    )


def _correspondent(checker: _Checker, said: str) -> str | bytes | None:
    try:
        return names.parse_fingerprint(said)
    except ValueError:
        pass
    if Path(said).expanduser().exists():
        return checker.read("--correspondent", said)
    checker.problems.append(f"--correspondent: {said!r} is neither a fingerprint nor a file")
    return None


def read_file(place: str, path: str | None) -> bytes | None:
    """The content of a file that was named; raises InvalidInputError when it cannot be read."""
    checker = _Checker()
    content = checker.read(place, path)
    if checker.problems:
        raise InvalidInputError("The input", checker.problems)
    return content


def take_password(from_stdin: bool) -> str:
    """The mail password, from standard input or a hidden prompt."""
    if from_stdin:
        password = first_line(sys.stdin.buffer)
    elif sys.stdin.isatty():
        password = str(click.prompt("Mail password", hide_input=True, err=True))
    else:
        raise MailboxError(
            "The mail password was not given; nothing was written.",
            resolution="Give it on standard input with --password-stdin.",
            code="password-missing",
            exit_code=Exit.USAGE,
        )
    if not password:
        raise InvalidInputError("The input", ["password: is empty"])
    return password


def first_line(source: BinaryIO) -> str:
    try:
        return source.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InvalidInputError("The input", ["password: is not text in UTF-8"]) from None


def authorities_in(place: str, content: bytes | None) -> tuple[str, ...]:
    """The certificates of a PEM file; raises InvalidInputError when it has none."""
    checker = _Checker()
    found = _certificates(checker, content, place)
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
        from sandbox.host.gnupg import ask_with_pinentry

        tty = os.ttyname(sys.stdin.fileno()) if sys.stdin.isatty() else None
        return ask_with_pinentry(f"{what}\n{fingerprint}", tty)

    return ask
