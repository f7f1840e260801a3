"""From the desired state to Evolution's own files: pure functions, no input or output.

Evolution keeps an account as key files, one a "source" (e-source-*.c of evolution-data-server);
the file's name is the source's identifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import evolution_dav
from evolution_smime import nickname

Json = dict[str, Any]
Groups = Mapping[str, Mapping[str, object]]

ACCOUNT, IDENTITY, TRANSPORT = "mailbox-account", "mailbox-identity", "mailbox-transport"
SIGNATURE = "mailbox-signature"
# Both of them ask the keyring for a password.
WITH_PASSWORD = {ACCOUNT: "incoming", TRANSPORT: "outgoing"}

_METHODS = {"tls": "ssl-on-alternate-port", "starttls": "starttls-on-standard-port"}
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def sources(desired: Json) -> dict[str, str]:
    """The key files below `~/.config/evolution`, by their paths there."""
    account = desired["account"]
    key = (desired.get("openpgp") or {}).get("key")
    return {
        f"sources/{ACCOUNT}.source": key_file(_incoming(account, desired["profile"]["name"])),
        f"sources/{IDENTITY}.source": key_file(_identity(account, key, desired.get("smime"))),
        f"sources/{TRANSPORT}.source": key_file(_outgoing(account)),
        f"sources/{SIGNATURE}.source": key_file(_signature()),
        f"signatures/{SIGNATURE}": str(account.get("signature") or ""),
        **{
            f"sources/{uid}.source": key_file(groups)
            for uid, _, groups in evolution_dav.collections(desired)
        },
    }


def passwords(desired: Json) -> dict[str, str]:
    """What the keyring is asked for, by the source that asks."""
    account = desired["account"]
    mail = {uid: account[server]["password"] for uid, server in WITH_PASSWORD.items()}
    return mail | {uid: wish["password"] for uid, wish, _ in evolution_dav.collections(desired)}


def settings(desired: Json) -> dict[str, dict[str, str]]:
    """What a person may change again, by folder of GSettings' key file, in GVariant's text form."""
    remote = bool((desired.get("policy") or {}).get("remote_content"))
    driven = bool(desired.get("marionette"))
    return {
        "org/gnome/evolution/mail": {
            "image-loading-policy": "'always'" if remote else "'never'",
        },
        "org/gnome/evolution/shell/window": {"maximized": "true"},
        "org/gnome/desktop/interface": {"toolkit-accessibility": "true" if driven else "false"},
    }


def key_file(groups: Groups) -> str:
    """The text of a GLib key file."""
    parts = []
    for name, entries in groups.items():
        lines = [f"{key}={_text(value)}" for key, value in entries.items()]
        parts.append("\n".join([f"[{name}]", *lines]) + "\n")
    return "\n".join(parts)


def merged(lines: Iterable[str], wished: Mapping[str, Mapping[str, str]]) -> str:
    """A key file of settings with our entries set and all others as they were."""
    groups: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in lines:
        if line.startswith("[") and line.rstrip().endswith("]"):
            current = groups.setdefault(line.strip()[1:-1], {})
        elif "=" in line:
            name, _, value = line.partition("=")
            current[name.strip()] = value.strip()
    for group, entries in wished.items():
        groups.setdefault(group, {}).update(entries)
    return "\n".join(
        "\n".join([f"[{group}]", *(f"{name}={value}" for name, value in entries.items())]) + "\n"
        for group, entries in groups.items()
    )


def _incoming(account: Json, name: str) -> Groups:
    return {
        "Data Source": {"DisplayName": name, "Enabled": True, "Parent": ""},
        "Authentication": _login(account["incoming"]),
        "Security": {"Method": _METHODS[account["incoming"]["security"]]},
        "Refresh": {"Enabled": True, "IntervalMinutes": 5},
        "Mail Account": {
            "BackendName": "imapx",
            "IdentityUid": IDENTITY,
            "NeedsInitialSetup": False,
        },
        "Imapx Backend": {"UseIdle": True, "CheckAll": False, "FilterInbox": False},
    }


def _identity(account: Json, key: Json | None, smime: Json | None) -> Groups:
    return {
        "Data Source": {"DisplayName": account["address"], "Enabled": True, "Parent": ACCOUNT},
        "Mail Identity": {
            "Address": account["address"],
            "Name": account.get("display_name") or "",
            "SignatureUid": SIGNATURE if account.get("signature") else "none",
        },
        "Mail Submission": {
            "TransportUid": TRANSPORT,
            "SentFolder": f"folder://{ACCOUNT}/Sent",
            "UseSentFolder": True,
        },
        "Mail Composition": {"DraftsFolder": f"folder://{ACCOUNT}/Drafts"},
        "Pretty Good Privacy (OpenPGP)": {
            "KeyId": key["fingerprint"] if key else "",
            # Evolution encrypts to keys that are valid: those that prepare() has vouched for.
            "AlwaysTrust": False,
            "EncryptToSelf": True,
            "EncryptByDefault": bool(key),
            "SignByDefault": bool(key),
            "PreferInline": False,
            "SendPublicKey": False,
            "LookupKeys": False,
            "AskSendPublicKey": False,
        },
        "Secure MIME (S/MIME)": _certificate(smime, preferred=not key),
    }


def _certificate(smime: Json | None, *, preferred: bool) -> dict[str, object]:
    """OpenPGP is preferred where there is a key, too."""
    name = nickname(smime) if smime else ""
    signs, encrypts = (bool(smime and smime.get(use)) for use in ("signs", "encrypts"))
    return {
        "SigningCertificate": name if signs else "",
        "SigningAlgorithm": "sha256",
        "SignByDefault": signs and preferred,
        "EncryptionCertificate": name if encrypts else "",
        "EncryptByDefault": False,  # there is no way to say "where there is a certificate"
        "EncryptToSelf": True,
    }


def _outgoing(account: Json) -> Groups:
    return {
        "Data Source": {"DisplayName": account["address"], "Enabled": True, "Parent": ACCOUNT},
        "Authentication": _login(account["outgoing"]),
        "Security": {"Method": _METHODS[account["outgoing"]["security"]]},
        "Mail Transport": {"BackendName": "smtp"},
    }


def _signature() -> Groups:
    return {
        "Data Source": {"DisplayName": "Mailbox", "Enabled": True, "Parent": ""},
        "Mail Signature": {"MimeType": "text/plain"},
    }


def _login(server: Json) -> dict[str, object]:
    return {
        "Host": server["host"],
        "Port": server["port"],
        "User": server["login"],
        "Method": "PLAIN",
        "RememberPassword": True,
        "CredentialName": "Password",
    }


def _text(value: object) -> str:
    """A value as GLib's key files have it: a line, whatever is in it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "".join(_ESCAPES.get(char, char) for char in str(value))
    return "\\s" + text[1:] if text.startswith(" ") else text
