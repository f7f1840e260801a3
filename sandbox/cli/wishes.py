"""The options of the commands that make a mailbox, and the wish that they amount to."""

from __future__ import annotations

import sys
from typing import Any

import click

from sandbox.cli import onboarding as input_
from sandbox.cli.answers import Answers, merge, read_answers
from sandbox.cli.discover import discoverer
from sandbox.cli.output import Printer
from sandbox.cli.passwords import DAV_PASSWORD, dav_password_source, take_password
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import Wish, check_first


def text_option(name: str, metavar: str, text: str) -> Any:
    return click.option(name, metavar=metavar, help=text)


_SERVER = (
    " (default: found from the address). TLS begins with the connection (/tls) or in it "
    "(/starttls: ports 143, 587 and 25 unless you say otherwise); without TLS there is none."
)
ACCOUNT = (
    click.option("--from", "from_file", metavar="FILE", help="Take the answers from a TOML file."),
    text_option("--template", "NAME", "The template with the defaults (default: default)."),
    text_option("--client", "NAME", "The mail client: the name of its image."),
    text_option("--address", "ADDRESS", "The mail address."),
    text_option("--display-name", "TEXT", "The name that recipients see."),
    text_option("--imap", "HOST[:PORT][/tls|/starttls]", "The IMAP server" + _SERVER),
    text_option("--smtp", "HOST[:PORT][/tls|/starttls]", "The submission server" + _SERVER),
    text_option("--login", "TEXT", "The login (default: the address)."),
    text_option("--signature", "TEXT", "The signature below every mail."),
    click.option("--password-stdin", is_flag=True, help="Read the mail password from a pipe."),
    text_option(
        "--ca", "FILE", "Authorities (PEM) that vouch for this mailbox's servers; no other has to."
    ),
    text_option("--key", "FINGERPRINT", "Your OpenPGP key, taken from your GnuPG."),
    text_option("--key-file", "FILE", "Your OpenPGP key, exported to a file."),
    click.option(
        "--custody",
        type=click.Choice(["guest", "host"]),
        help="Where your private key lives: on the encrypted volume, or here (docs/keys.md).",
    ),
    click.option(
        "--holder",
        type=click.Choice(["mailbox", "user"]),
        help="With --custody host: who holds the key, the mailbox's own key ring, or your own "
        "GnuPG (a smartcard, too), of which no copy is made.",
    ),
    click.option("--generate-key", is_flag=True, default=None, help="Make a new OpenPGP key."),
    click.option(
        "--key-passphrase-fd",
        type=int,
        metavar="N",
        help="Read the key's passphrase from descriptor N instead of asking with pinentry.",
    ),
    click.option(
        "--correspondent",
        "correspondents",
        multiple=True,
        metavar="FINGERPRINT|FILE",
        help="Accept this correspondent's key, or all keys of a file (repeatable).",
    ),
    click.option(
        "--caldav",
        multiple=True,
        metavar="URL|HOST",
        help="A calendar, or the server on which yours are to be found (repeatable).",
    ),
    click.option(
        "--carddav",
        multiple=True,
        metavar="URL|HOST",
        help="An address book, or the server on which yours are to be found (repeatable).",
    ),
    text_option("--dav-login", "TEXT", "The login for them (default: the mail's)."),
    *DAV_PASSWORD,
    text_option("--colour", "COLOUR", "The customer's colour: #rrggbb or a name."),
    click.option(
        "--connect-to",
        multiple=True,
        metavar="HOST:PORT:TARGET:PORT",
        help="Reach a server at another place, such as a tunnel's end; its name stays checked.",
    ),
    click.option("--offline", is_flag=True, help="Do not check servers and login now."),
    click.option("--yes", is_flag=True, help="Take servers that were found without asking."),
    # For tests: lets programs in the machine drive the mail client (docs/threat-model.md).
    click.option("--marionette", is_flag=True, default=None, hidden=True),
)


def gather_wish(
    printer: Printer,
    house: House,
    name: str,
    *,
    from_file: str | None,
    password_stdin: bool,
    dav_password_stdin: bool,
    dav_password_fd: int | None,
    key_passphrase_fd: int | None,
    offline: bool,
    reuse_name: bool,
    yes: bool,
    **said: Any,
) -> Wish:
    """From options, a file and, on a terminal, answers to a checked wish."""
    file = read_answers(from_file) if from_file else Answers()
    answers = merge(Answers(**said), file)
    interactive = sys.stdin.isatty() and not printer.as_json
    discover = discoverer(printer, interactive=interactive, yes=yes)
    if interactive:
        check_first(house, name, reuse_name=reuse_name)
        answers = input_.ask_missing(answers, None if offline else discover)
    asked = interactive or offline
    return input_.check_answers(
        name,
        answers,
        house.records.template,
        find_servers=None if asked else lambda said: input_.discover_missing(said, discover),
        password=lambda: take_password(password_stdin),
        dav_password=dav_password_source(dav_password_stdin, dav_password_fd),
        ask=input_.passphrase_source(key_passphrase_fd),
        check_servers=not offline,
        reuse_name=reuse_name,
    )
