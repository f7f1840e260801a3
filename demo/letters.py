"""Mail as people write it: umlauts, HTML, attachments; and what makes it PGP/MIME (RFC 3156)."""

from __future__ import annotations

from email.message import EmailMessage, Message
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP
from email.utils import format_datetime, localtime, make_msgid
from typing import Any, TypeVar

M = TypeVar("M", bound=Message)


def plain(sender: str, recipient: str, subject: str, text: str) -> EmailMessage:
    """A text message."""
    message = _addressed(EmailMessage(policy=SMTP), sender, recipient, subject)
    message.set_content(text)
    return message


def ordinary(sender: str, recipient: str) -> list[bytes]:
    """Three everyday messages: umlauts, HTML with a remote picture, an attachment."""
    umlauts = plain(
        sender,
        recipient,
        "Grüße aus Köln: die Übergabe nächste Woche",
        "Schöne Grüße,\n\ndie Schlüsselübergabe für das Büro ist am Dienstag.\n\nBert\n",
    )
    html = plain(sender, recipient, "Angebot als HTML", "Das Angebot steht unten.\n")
    html.add_alternative(
        "<html><body><h1>Angebot</h1><p>Preis: <b>1.200 €</b></p>"
        '<img src="https://tracker.partner.test/pixel.png" alt="Bild"></body></html>',
        subtype="html",
    )
    attached = plain(sender, recipient, "Unterlagen im Anhang", "Anbei die Übersicht.\n")
    attached.add_attachment(
        b"Posten;Betrag\nMiete;900\nStrom;80\n",
        maintype="text",
        subtype="csv",
        filename="Übersicht.csv",
    )
    return [bytes(message) for message in (umlauts, html, attached)]


def to_protect(sender: str, recipient: str, subject: str, text: str) -> bytes:
    """The inner part of an encrypted message, with its headers protected."""
    inner = MIMEText(text, "plain", "utf-8", policy=SMTP)
    inner.set_param("protected-headers", "v1")
    for name, value in (("From", sender), ("To", recipient), ("Subject", subject)):
        inner[name] = value
    return inner.as_bytes(policy=SMTP)


def encrypted(sender: str, recipient: str, ciphertext: str) -> bytes:
    """The outer message: who and when, and nothing of what."""
    outer = MIMEMultipart("encrypted", protocol="application/pgp-encrypted", policy=SMTP)
    _addressed(outer, sender, recipient, "...")
    version = MIMEApplication("Version: 1\r\n", "pgp-encrypted", _encoder=_as_is)
    payload = MIMEApplication(ciphertext, "octet-stream", _encoder=_as_is, name="encrypted.asc")
    payload.add_header("Content-Disposition", "inline", filename="encrypted.asc")
    outer.attach(version)
    outer.attach(payload)
    return outer.as_bytes(policy=SMTP)


def _as_is(_: Any) -> None:
    """Armor is ASCII already."""


def _addressed(message: M, sender: str, recipient: str, subject: str) -> M:
    message["From"] = sender
    message["To"] = recipient
    message["Subject"] = subject
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].rstrip(">"))
    return message
