"""Detached signatures of the real GnuPG."""

from __future__ import annotations

import pytest

from demo.session import Session
from sandbox.host.signing import sign, verify
from sandbox.model.errors import MailboxError

CONTENT = '{"controller":"Größe"}\n'.encode()


@pytest.fixture(scope="module")
def key(in_session: Session) -> str:
    command = ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", "Anna <a@kunde.test>"]
    in_session.run([*command, "ed25519", "sign"])
    listed = in_session.run(["gpg", "--batch", "--with-colons", "--list-secret-keys"])
    return next(
        line.split(":")[9] for line in listed.stdout.decode().splitlines() if line[:3] == "fpr"
    )


def test_a_signature_is_good_until_a_byte_changes(key: str) -> None:
    signature = sign(key, CONTENT)
    assert signature.startswith(b"-----BEGIN PGP SIGNATURE-----")
    signed = verify(CONTENT, signature)
    assert (signed.state, signed.fingerprint) == ("good", key)
    assert verify(CONTENT + b" ", signature).state == "bad"
    assert verify(CONTENT, b"nonsense").state == "bad"


def test_a_key_that_is_not_here_is_not_taken_for_good(
    key: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    signature = sign(key, CONTENT)
    empty = tmp_path_factory.mktemp("g")
    monkeypatch.setenv("GNUPGHOME", str(empty))
    assert verify(CONTENT, signature).state == "unknown"
    with pytest.raises(MailboxError) as refused:
        sign(key, CONTENT)
    assert refused.value.code == "not-signed"
