"""A mailbox's public key as a folder to upload."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from sandbox.cli import key_commands
from sandbox.cli.app import cli
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.lifecycle.publish import publish
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.wkd import directory, hashed
from tests.unit.fakes import ACCOUNT, NAME, OWN, make_wish


def test_the_draft_s_own_example() -> None:
    """draft-koch-openpgp-webkey-service, section 3.1."""
    assert hashed("Joe.Doe") == "iy9q119eutrkn8s1mk4r39qejnbu3n5q"
    tree = ".well-known/openpgpkey"
    assert directory("Joe.Doe@Example.ORG", b"key") == {
        f"{tree}/hu/iy9q119eutrkn8s1mk4r39qejnbu3n5q": b"key",
        f"{tree}/policy": b"",
        f"{tree}/example.org/hu/iy9q119eutrkn8s1mk4r39qejnbu3n5q": b"key",
        f"{tree}/example.org/policy": b"",
    }


def test_only_ascii_letters_lose_their_case() -> None:
    assert hashed("ANNA") == hashed("anna") and hashed("ÄNNE") != hashed("änne")


def test_it_is_written_for_everybody_and_again(house: House, tmp_path: Path) -> None:
    onboard(house, make_wish())
    folder = tmp_path / "upload" / "here"
    for _ in range(2):
        result = publish(house, NAME, folder)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(folder)) for path in written) == result.facts["files"]
    keys = [path for path in written if path.parent.name == "hu"]
    assert len(keys) == 2
    assert {path.read_bytes() for path in keys} == {f"published {OWN} anna@kunde.test".encode()}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written)
    inner = [path for path in folder.rglob("*") if path.is_dir()]
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in inner)


def test_without_a_fitting_key_nothing_is_written(house: House, tmp_path: Path) -> None:
    onboard(house, make_wish(account=replace(ACCOUNT, address="other@kunde.test")))
    onboard(house, make_wish("bare", key=KeyChoice(), correspondents=()))
    for name, code in ((NAME, "key-unusable"), ("bare", "key-not-found")):
        with pytest.raises(MailboxError) as refused:
            publish(house, name, tmp_path / "upload")
        assert refused.value.code == code
    assert not (tmp_path / "upload").exists()


def test_the_command_says_where(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onboard(house, make_wish())
    monkeypatch.setattr(key_commands, "compose", lambda _printer: house)
    done = CliRunner().invoke(cli, ["keys", "publish", NAME, str(tmp_path / "upload")])
    assert done.exit_code == Exit.OK and "ready to upload" in done.output
    (tmp_path / "file").write_text("")
    refused = CliRunner().invoke(cli, ["keys", "publish", NAME, str(tmp_path / "file")])
    assert refused.exit_code == Exit.USAGE
