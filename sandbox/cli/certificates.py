"""`certificate`: shown, written, signed, verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sandbox.cli.app import NAME, verb
from sandbox.cli.compose import compose
from sandbox.cli.output import Printer
from sandbox.lifecycle.house import House, Result
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.names import parse_fingerprint
from sandbox.state import files

_FORMATS = ("text", "json", "pdf")


def signing_key(_context: Any, _option: Any, said: str | None) -> str | None:
    """The fingerprint of --sign-with, checked before anything is done."""
    try:
        return parse_fingerprint(said) if said else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


SIGN_WITH = click.option(
    "--sign-with",
    metavar="FINGERPRINT",
    callback=signing_key,
    help="Sign with this key of your own GnuPG (a detached signature beside the file).",
)


@verb(
    NAME,
    click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path)),
    click.option("--format", "kind", type=click.Choice(_FORMATS), default="text", help="How."),
    click.option("--language", type=click.Choice(["de", "en"]), default="en", help="In words of."),
    click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Into a file."),
    click.option("--id", "profile_id", metavar="ID", help="Of an earlier mailbox of that name."),
    SIGN_WITH,
)
def certificate(
    printer: Printer,
    name: str,
    file: Path | None,
    kind: str,
    language: str,
    out: Path | None,
    profile_id: str | None,
    sign_with: str | None,
) -> int:
    """Show the certificate of a shredded mailbox, write it to a file, or verify one.

    \b
    mailbox certificate clientA --format pdf --language de --out clientA.pdf
    mailbox certificate clientA --sign-with FINGERPRINT
    mailbox certificate verify clientA.pdf
    """
    if file is not None:
        if name != "verify":
            raise click.UsageError("A FILE is for `mailbox certificate verify FILE`.")
        return _verify(printer, file)
    from sandbox.lifecycle.certify import find_certificate

    house = compose(printer)
    document = find_certificate(house, name, profile_id)
    if printer.as_json and not out and not sign_with:
        printer.document(document)
        return 0
    if kind == "pdf" and not out:
        raise click.UsageError("A PDF needs --out FILE.")
    content = render(document, "json" if sign_with and not out else kind, language)
    if not out and not sign_with:
        printer.line(content.decode().rstrip("\n"))
        return 0
    place = out or _kept(house, document)
    _write(place, content)
    signature = write_signature(place, content, sign_with) if sign_with else None
    facts = {"file": str(place), "signature": signature, "number": document["number"]}
    saved = f"Wrote {place}" + (f" and {signature}." if signature else ".")
    printer.result(Result("certificate", name, saved, facts))
    return 0


def _kept(house: House, document: dict[str, Any]) -> Path:
    about = {e["id"]: e.get("text", "") for s in document["sections"] for e in s["entries"]}
    return house.paths.certificate(str(about["mailbox"]), str(about["profile"]))


def render(document: dict[str, Any], kind: str, language: str) -> bytes:
    """A certificate in one of its forms."""
    if kind == "json":
        from sandbox.report.canonical import canonical

        return canonical(document)
    if kind == "pdf":
        from sandbox.report.pdf import as_pdf

        return as_pdf(document, language)
    from sandbox.report.pages import as_text

    return as_text(document, language).encode()


def _write(place: Path, content: bytes) -> None:
    with files.readable_errors(place):
        place.touch(0o600)
        place.write_bytes(content)


def write_signature(place: Path, content: bytes, fingerprint: str) -> str:
    """Sign what was written; returns the path of the signature beside it."""
    from sandbox.host.signing import sign

    beside = signature_of(place)
    _write(beside, sign(fingerprint, content))
    return str(beside)


def signature_of(place: Path) -> Path:
    """Where the detached signature of a file lies."""
    return place.with_name(f"{place.name}.asc")


def _verify(printer: Printer, file: Path) -> int:
    from sandbox.lifecycle.certify import noted_digest

    with files.readable_errors(file):
        content = file.read_bytes()
        beside = signature_of(file)
        signature = beside.read_bytes() if beside.exists() else None
    facts = examine(content, signature, lambda doc: noted_digest(compose(printer), doc))
    good = (
        facts["content"] == "whole" and facts["signature"] != "bad" and facts["noted"] is not False
    )
    if not good:
        raise MailboxError(
            f"{file} is not as it was issued: {_reason(facts)}.",
            details="\n".join(f"{key}: {value}" for key, value in facts.items()),
            resolution="Do not rely on it; `mailbox certificate NAME` shows the one on record.",
            code="certificate-changed",
            exit_code=Exit.DAMAGED,
        )
    printer.result(Result("certificate verify", str(facts["number"]), _summary(file, facts), facts))
    return 0


def examine(
    content: bytes,
    signature: bytes | None,
    noted: Callable[[dict[str, Any]], bool | None],
) -> dict[str, Any]:
    """What is true of a certificate's file: its content, its signature, the journal's note."""
    facts: dict[str, Any] = {"content": "whole", "number": "", "digest": "", "signer": ""}
    facts |= {"signature": _checked(content, signature, facts), "noted": None}
    try:
        document = _read(content)
    except ValueError as error:
        return facts | {"content": str(error)}
    return facts | {
        "number": document["number"],
        "digest": document["digest"],
        "noted": noted(document),
    }


def _checked(content: bytes, signature: bytes | None, facts: dict[str, Any]) -> str:
    if signature is None:
        return "none"
    from sandbox.host.signing import verify

    signed = verify(content, signature)
    facts["signer"] = signed.fingerprint
    return signed.state


def _read(content: bytes) -> dict[str, Any]:
    from sandbox.lifecycle.certify import is_certificate
    from sandbox.report.canonical import read
    from sandbox.report.pdf import attached_json

    pdf = content.startswith(b"%PDF-")
    document = read((attached_json(content) or b"") if pdf else content)
    if not is_certificate(document):
        raise ValueError("it is no certificate")
    if pdf and all(render(document, "pdf", each) != content for each in ("de", "en")):
        raise ValueError("its pages are not those that its data make")
    return document


def _reason(facts: dict[str, Any]) -> str:
    if facts["content"] != "whole":
        return str(facts["content"])
    if facts["signature"] == "bad":
        return "its signature does not fit"
    return "the journal here noted another digest for its number"


def _summary(file: Path, facts: dict[str, Any]) -> str:
    signed = {
        "none": "it carries no signature, so whoever can write the file could have made it anew",
        "good": f"signed by {facts['signer']}",
        "unknown": "its signature is by a key that is not in your GnuPG, so it was not checked",
    }[str(facts["signature"])]
    noted = "; the journal here noted the same digest" if facts["noted"] else ""
    return f"{file} is unchanged ({facts['number']}): {signed}{noted}."
