"""Keys of others before they are accepted: bytes, mails, what is meant, and who has to say yes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cli import correspondents
from sandbox.cli.app import cli
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.model import wkd
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keys import Key
from sandbox.model.mailkeys import is_mail, keys_of_mail
from sandbox.model.offers import Reading, ReadKey, Source, offered, refuse_unusable
from sandbox.model.packets import armored, read_keys
from tests.unit.fakes import BERT, NAME, FakeKeyReader, World, make_house, make_wish

Run = Callable[..., Result]
CARLA, DORA = "C" * 40, "D" * 40
ADDRESS = "carla@p.test"


def packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, len(body)]) + body


def key_bytes(seed: bytes, *, version: int = 4, secret: bool = False) -> bytes:
    """Packets as a key has them; nothing in them is signed."""
    public = packet(5 if secret else 6, bytes([version]) + seed)
    return public + packet(13, b"Carla <carla@p.test>") + packet(14, b"\x04sub")


def print_of(seed: bytes) -> str:
    body = b"\x04" + seed
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()


# --- packets


def test_keys_are_told_apart_in_both_forms() -> None:
    data = key_bytes(b"one") + key_bytes(b"two")
    both = [print_of(b"one"), print_of(b"two")]
    assert [each.fingerprint for each in read_keys(data)] == both
    text = f"pub  a listing\n\n{armored(key_bytes(b'one'))}\nText\n{armored(key_bytes(b'two'))}"
    assert [each.fingerprint for each in read_keys(text.encode())] == both
    assert read_keys(armored(data).encode()) == read_keys(data)


def test_secret_and_unknown_keys_have_no_fingerprint() -> None:
    secret, old = read_keys(key_bytes(b"s", secret=True) + key_bytes(b"o", version=3))
    assert (secret.secret, secret.fingerprint) == (True, "")
    assert (old.version, old.fingerprint) == (3, "")
    assert len(read_keys(key_bytes(b"n", version=6))[0].fingerprint) == 64


@given(st.binary(max_size=300))
def test_nothing_but_a_reason_comes_of_junk(data: bytes) -> None:
    for content in (data, key_bytes(b"k") + data, b"\x99" + data, b"\xc6" + data):
        try:
            found = read_keys(content)
        except ValueError as error:
            assert str(error).startswith("holds ")
        else:
            assert found


@given(st.binary(min_size=1, max_size=200))
def test_an_armor_is_undone(data: bytes) -> None:
    content = key_bytes(data[:100])
    assert read_keys(armored(content).replace("\n", "\r\n").encode())[0].data == content


# --- Web Key Directory


def test_the_places_are_those_of_the_draft() -> None:
    host, advanced = wkd.advanced("Joe.Doe@Example.ORG")
    name = "iy9q119eutrkn8s1mk4r39qejnbu3n5q?l=Joe.Doe"
    assert host == "openpgpkey.example.org"
    assert advanced == f"https://{host}/.well-known/openpgpkey/example.org/hu/{name}"
    direct = f"https://example.org/.well-known/openpgpkey/hu/{name}"
    assert wkd.direct("Joe.Doe@Example.ORG") == direct
    assert wkd.direct("a+b@x.test").endswith("?l=a%2Bb")


# --- mails


def mail(*headers: str, body: str = "Hello", sender: str = f"Carla <{ADDRESS}>") -> bytes:
    return "\r\n".join([f"From: {sender}", *headers, "", body, ""]).encode()


def autocrypt(seed: bytes, address: str = ADDRESS, extra: str = "") -> str:
    text = base64.b64encode(key_bytes(seed)).decode()
    return f"Autocrypt: addr={address}; {extra}keydata={text[:20]}\r\n {text[20:]}"


def prints(content: bytes) -> list[str]:
    return [each.fingerprint for each in read_keys(keys_of_mail(content)[1])]


def test_an_autocrypt_header_is_read() -> None:
    content = mail("Subject: x", autocrypt(b"one", extra="prefer-encrypt=mutual; _x=1; "))
    assert is_mail(content) and prints(content) == [print_of(b"one")]
    assert keys_of_mail(content)[0] == ADDRESS


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (autocrypt(b"one", "other@p.test"),),
        (autocrypt(b"one", extra="unknown=1; "),),
        (autocrypt(b"one"), autocrypt(b"two")),
        ("Autocrypt: addr=carla@p.test; keydata=????",),
        ("Autocrypt: ;;=;",),
    ],
)
def test_an_autocrypt_header_that_is_not_valid_is_none(headers: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="carries no key"):
        keys_of_mail(mail(*headers))


def test_an_attached_key_is_read_once() -> None:
    key = armored(key_bytes(b"one"))
    parts = [
        "--b\r\nContent-Type: text/plain\r\n\r\nsee below",
        f'--b\r\nContent-Type: application/pgp-keys; name="c.asc"\r\n\r\n{key}',
        f"--b\r\nContent-Type: text/plain\r\n\r\nThe same:\n{key}",
        "--b\r\nContent-Type: application/pgp-keys\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.b64encode(key_bytes(b"two")).decode(),
        f"--b\r\nContent-Type: image/png\r\n\r\n{key}",
        "--b--",
    ]
    content = mail("Content-Type: multipart/mixed; boundary=b", body="\r\n".join(parts))
    assert prints(content) == [print_of(b"one"), print_of(b"two")]


def test_a_secret_key_in_a_mail_is_left_there() -> None:
    with pytest.raises(ValueError, match="carries no key"):
        keys_of_mail(mail(body=armored(key_bytes(b"one", secret=True))))


@pytest.mark.parametrize("sender", ["a@p.test, b@p.test", "nobody", "", "=?x?q?y?="])
def test_a_mail_has_one_sender(sender: str) -> None:
    with pytest.raises(ValueError, match="sender"):
        keys_of_mail(mail(autocrypt(b"one"), sender=sender))


@given(st.binary(max_size=300))
def test_any_mail_gives_keys_or_a_reason(data: bytes) -> None:
    for content in (data, mail(body="") + data, b"From: a@b.test\nAutocrypt: " + data):
        is_mail(content)
        try:
            keys_of_mail(content)
        except ValueError as error:
            assert str(error)


def test_files_of_keys_are_no_mails() -> None:
    assert not is_mail(armored(key_bytes(b"one")).encode())
    assert not is_mail(key_bytes(b"one"))
    assert not is_mail(b"pub: 4 keys\nFor: you\n" + armored(key_bytes(b"x")).encode())
    assert is_mail(b"From bert Mon\nReceived: by x\nFrom: a@b.test\n\n")


# --- what is offered


def read(fingerprint: str, *addresses: str, validity: str = "-") -> ReadKey:
    ids = tuple(f"A <{each}>" for each in addresses)
    return ReadKey(Key(fingerprint, ids, addresses, "ESC", validity, 1), "public")


def test_of_several_keys_the_usable_ones_of_the_address_are_offered() -> None:
    keys = (read(CARLA, ADDRESS), read(DORA, ADDRESS, validity="e"), read(BERT, "b@p.test"))
    found = offered(Source("x", b"", address="Carla@p.test"), Reading(keys))
    (offer,) = found.offers
    assert offer.accepted().addresses == (ADDRESS,)
    assert [each.split(" ", 1) for each in found.problems] == [
        [DORA, "expired on 1970-01-01"],
        [BERT, f"has no valid user id with {ADDRESS}"],
    ]


def test_another_key_than_asked_for_is_refused() -> None:
    asked = Source("x", b"", fingerprint=CARLA, trusted=True)
    with pytest.raises(MailboxError, match="another key"):
        refuse_unusable([offered(asked, Reading((read(DORA, ADDRESS),)))])
    both = offered(asked, Reading((read(DORA, ADDRESS), read(CARLA, ADDRESS))))
    refuse_unusable([both], whole=True)
    assert [each.key.fingerprint for each in both.offers] == [CARLA]


def test_everything_unusable_is_told_of_every_file() -> None:
    dead = read(DORA, ADDRESS, validity="r")
    file = Source("a.asc", b"", trusted=True)
    partly = offered(file, Reading((read(CARLA, ADDRESS), dead)))
    empty = offered(replace(file, shown="b.asc"), Reading())
    refuse_unusable([partly])
    for found, whole in (([partly, empty], True), ([empty, partly], True), ([empty], False)):
        with pytest.raises(MailboxError) as refused:
            refuse_unusable(found, whole=whole)
        said = f"{refused.value.brief} {refused.value.details}"
        assert "b.asc: holds no OpenPGP key" in said and CARLA not in said
        assert (f"a.asc: {DORA} is revoked" in said) is (partly in found)


# --- the command


@pytest.fixture
def run(house: House, world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    onboard(house, make_wish())

    def compose(progress: Any) -> House:
        return replace(make_house(world), progress=progress)

    monkeypatch.setattr(correspondents, "compose", compose)

    def invoke(*arguments: str, input: str | bytes = "") -> Result:
        command = ["keys", "add", NAME, *arguments]
        done = CliRunner().invoke(cli, command, input=input, prog_name="mailbox")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done

    return invoke


def accepted(house: House) -> dict[str, tuple[str, ...]]:
    known = house.records.load(NAME).keys.correspondents
    return {each.fingerprint: each.addresses for each in known if each.fingerprint != BERT}


def code(done: Result) -> str:
    assert done.exit_code != Exit.OK, done.output
    return str(json.loads(done.stdout)["error"]["code"])


def test_what_was_looked_up_needs_a_word(run: Run, house: House, world: World) -> None:
    world.published[ADDRESS] = f"public {CARLA} {ADDRESS}".encode()
    refused = run(ADDRESS, "--json")
    assert code(refused) == "key-not-confirmed" and CARLA in refused.stdout
    assert accepted(house) == {}
    assert code(run(ADDRESS, "--fingerprint", DORA, "--json")) == "fingerprint-mismatch"
    assert accepted(house) == {} and house.journal(NAME).read().pending() is None
    assert run(ADDRESS, "--fingerprint", CARLA).exit_code == Exit.OK
    assert accepted(house) == {CARLA: (ADDRESS,)}


def test_a_person_at_a_terminal_is_asked(
    run: Run, house: House, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.published[ADDRESS] = f"public {CARLA} {ADDRESS}".encode()
    monkeypatch.setattr(correspondents, "_can_ask", lambda _printer: True)
    done = run(ADDRESS, input="n\n")
    assert done.exit_code == Exit.KEYS and accepted(house) == {}
    assert " ".join(["CCCC"] * 10) in done.stderr and ADDRESS in done.stderr
    assert run(ADDRESS, input="y\n").exit_code == Exit.OK
    assert accepted(house) == {CARLA: (ADDRESS,)}


def test_several_keys_of_an_address_are_told_and_not_taken(run: Run, world: World) -> None:
    both = f"public {CARLA} {ADDRESS}\npublic {DORA} {ADDRESS}"
    world.published[ADDRESS] = both.encode()
    for consent in ((), ("--all",)):
        refused = run(ADDRESS, *consent, "--json")
        assert code(refused) == "several-keys"
        assert CARLA in refused.stdout and DORA in refused.stdout
    assert run(ADDRESS, "--fingerprint", DORA).exit_code == Exit.OK


def test_a_key_server_is_asked_where_one_is_named(run: Run, house: House, world: World) -> None:
    world.published[CARLA] = f"public {CARLA} {ADDRESS}".encode()
    assert code(run(ADDRESS, "--keyserver", "hkps://keys.test", "--json")) == "key-not-found"
    assert run(CARLA, "--keyserver", "hkps://keys.test").exit_code == Exit.OK
    assert accepted(house) == {CARLA: (ADDRESS,)}
    world.published[CARLA] = f"public {DORA} {ADDRESS}".encode()
    assert code(run(CARLA, "--keyserver", "hkps://keys.test", "--json")) == "key-unusable"


def test_a_file_of_many_is_taken_as_a_whole_or_by_name(
    run: Run, house: House, tmp_path: Path
) -> None:
    file = tmp_path / "keys.asc"
    file.write_text(f"public {CARLA} {ADDRESS}\npublic {DORA} d@p.test")
    assert run(str(file), "--fingerprint", DORA).exit_code == Exit.OK
    assert set(accepted(house)) == {DORA}
    done = run(str(file))
    assert done.exit_code == Exit.OK and done.stdout.startswith("2 keys are accepted")
    for letter, address in (("C", ADDRESS), ("D", "d@p.test")):
        assert " ".join([letter * 4] * 10) in done.stderr and address in done.stderr
    assert accepted(house) == {CARLA: (ADDRESS,), DORA: ("d@p.test",)}


def test_a_file_with_a_key_that_is_none_is_taken_without_it_only_when_that_is_said(
    run: Run, house: House, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "keys.asc"
    file.write_text("x")
    reading = Reading((read(CARLA, ADDRESS),), ("a key of version 3 cannot be used",))
    monkeypatch.setattr(FakeKeyReader, "read", lambda _self, _all: [reading])
    refused = run(str(file), "--json")
    assert code(refused) == "key-unusable" and "version 3" in refused.stdout
    assert accepted(house) == {}
    done = run(str(file), "--all")
    assert done.exit_code == Exit.OK and "left out" in done.stderr
    assert set(accepted(house)) == {CARLA}


def test_several_sources_are_one_change(run: Run, house: House, world: World) -> None:
    world.keys[CARLA] = (ADDRESS, "")
    world.published["d@p.test"] = f"public {DORA} d@p.test".encode()
    done = run(CARLA, "d@p.test", "--yes")
    assert done.exit_code == Exit.OK and set(accepted(house)) == {CARLA, DORA}
    begun = [each for each in house.journal(NAME).read().entries if each.event == "begin"]
    assert [each.verb for each in begun][-1:] == ["keys add"] and len(begun) == 2


def test_a_mail_on_the_server_is_read_with_the_customers_login(run: Run, world: World) -> None:
    world.published["<1@p.test>"] = mail("Subject: no key")
    assert code(run("--from-mail", "<1@p.test>", "--json")) == "key-unusable"
    assert code(run("--from-mail", "<2@p.test>", "--json")) == "key-not-found"


@pytest.mark.parametrize("wrong", ["ABCD1234", "no-such-file.asc", "@", "a b@c.test"])
def test_what_names_no_key_is_said(run: Run, wrong: str) -> None:
    done = run("nothing-of-that-name", wrong, "--json")
    assert code(done) == "invalid-input"
    told = json.loads(done.stdout)["error"]["details"]
    assert "'nothing-of-that-name'" in told and repr(wrong) in told


def test_a_dry_run_looks_and_changes_nothing(run: Run, house: House, world: World) -> None:
    world.published[ADDRESS] = f"public {CARLA} {ADDRESS}".encode()
    done = run(ADDRESS, "--yes", "--dry-run", "--json")
    said = json.loads(done.stdout)
    assert [each["id"] for each in said["steps"]] == ["take", "profile"]
    assert said["keys"][0]["fingerprint"] == CARLA and accepted(house) == {}
