"""Keys on the host: rules, keygrips, the pinentry, and what the verbs do with them."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.channel.config import parse_config
from sandbox.cli import key_commands
from sandbox.host.custody import pinentry
from sandbox.host.custody.agent import AgentError
from sandbox.host.custody.holder import Holder, Holding
from sandbox.host.custody.keygrips import parse_grips, parse_retired
from sandbox.lifecycle import rings
from sandbox.lifecycle.close import close
from sandbox.lifecycle.house import House
from sandbox.lifecycle.key_details import show_key
from sandbox.lifecycle.keys import list_keys
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.shred import shred
from sandbox.model.custody import Custody, Grants, HeldBy, Rate, Rule, Where, parse_rule
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.profile import read_profile, write_profile
from sandbox.state.activity import MOST_BYTES, Activity
from tests.unit.fakes import BERT, NAME, OWN, SETTINGS, FakeUserKeyring, World, make_wish

HOST = replace(SETTINGS, custody=Custody(Where.HOST, sign=Rule(ask=True, minutes=10)))


# -- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["allow", "ask", "allow for 10 minutes", "allow for 1440 minutes"])
def test_rules_are_written_as_they_are_read(text: str) -> None:
    assert str(parse_rule(text)) == text


@pytest.mark.parametrize("text", ["", "deny", "allow for 0 minutes", "allow for ever", "Allow"])
def test_other_rules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allow"):
        parse_rule(text)


def test_a_yes_lasts_as_its_rule_says_and_a_no_for_one_mail() -> None:
    custody = Custody(Where.HOST, decrypt=Rule(ask=True), sign=Rule(ask=True, minutes=10))
    grants = Grants(custody)
    assert grants.decide("decrypt", 0) is None
    grants.answer("decrypt", yes=True, now=0)
    grants.answer("sign", yes=True, now=0)
    assert [grants.decide("decrypt", now) for now in (1, 29, 31)] == [True, True, None]
    assert [grants.decide("sign", now) for now in (1, 599, 601)] == [True, True, None]
    grants.answer("sign", yes=False, now=700)
    assert [grants.decide("sign", now) for now in (701, 729, 731)] == [False, False, None]
    grants.answer("sign", yes=False, now=800)
    grants.allow(60, now=801)
    assert [grants.decide("sign", now) for now in (802, 860, 862)] == [True, True, None]
    assert Grants(Custody(Where.HOST)).decide("sign", 0) is True


def test_the_rate_is_bounded_and_recovers() -> None:
    rate = Rate(3, 1.0)
    assert [rate.take(0) for _ in range(4)] == [True, True, True, False]
    assert [rate.take(2) for _ in range(3)] == [True, True, False]


def test_a_profile_keeps_its_custody(house: House) -> None:
    onboard(house, make_wish(settings=HOST))
    profile = house.records.load(NAME)
    assert profile.settings.custody == HOST.custody
    document = write_profile(profile)
    document["keys"]["sign"] = "sometimes"
    with pytest.raises(InvalidInputError) as caught:
        read_profile(document, house.records.template("default"))
    assert "keys.sign" in caught.value.details


def test_the_template_split_keeps_the_key_here(house: House) -> None:
    assert house.records.template("split").custody.where is Where.HOST
    assert house.records.template("default").custody.where is Where.GUEST


# -- keygrips -------------------------------------------------------------------------------------


def listing(*keys: tuple[str, str, str, str]) -> str:
    """gpg's lines: kind, validity, capabilities, and where the secret part is."""
    rows = []
    for number, (kind, validity, capabilities, place) in enumerate(keys):
        fields = [kind, validity, "", "", "", "", "", "", "", "", "", capabilities, "", "", place]
        rows += [":".join([*fields, "", ""]), f"fpr:::::::::{number}:", f"grp:::::::::G{number}:"]
    return "\n".join(rows)


def test_a_retired_key_decrypts_even_revoked_and_signs_nothing() -> None:
    revoked = [("sec", "r", "scESC", "+"), ("ssb", "r", "e", "+"), ("ssb", "e", "e", "+")]
    assert parse_retired(listing(*revoked)) == ("G1", "G2")
    assert parse_retired(listing(("sec", "u", "scESC", "#"), ("ssb", "u", "e", "#"))) == ()


SIGNS, OLD = ("ssb", "u", "s", "+"), ("ssb", "e", "e", "+")


@pytest.mark.parametrize(
    ("keys", "sign", "decrypt"),
    [
        ([("sec", "u", "scESC", "+"), ("ssb", "u", "e", "+")], ["G0"], ["G1"]),
        ([("sec", "u", "cESC", "+"), SIGNS, ("ssb", "u", "e", "+")], ["G1"], ["G2"]),
        ([("sec", "u", "scESC", "#"), SIGNS, ("ssb", "u", "e", "+")], ["G1"], ["G2"]),
        ([("sec", "u", "scESC", "#"), ("ssb", "u", "e", "+")], [], ["G1"]),
        ([("sec", "u", "sc", "+"), OLD, ("ssb", "u", "e", "+")], ["G0"], ["G1", "G2"]),
        ([("sec", "u", "sc", "+"), ("ssb", "r", "s", "+"), ("ssb", "r", "e", "+")], ["G0"], []),
        ([("sec", "u", "scESC", "D2760001240102000005000012340000")], ["G0"], []),
        ([], [], []),
    ],
)  # fmt: skip
def test_which_keys_a_machine_may_use(keys: Any, sign: list[str], decrypt: list[str]) -> None:
    grips = parse_grips(listing(*keys))
    assert (list(grips.sign), list(grips.decrypt)) == (sign, decrypt)


# -- pinentry -------------------------------------------------------------------------------------


def told(lines: bytes, passphrase: str | None) -> bytes:
    sink = io.BytesIO()
    pinentry.serve(io.BytesIO(lines), sink, lambda: passphrase)
    return sink.getvalue()


def test_the_pinentry_gives_the_passphrase_and_no_second_one() -> None:
    assert b"D a%25b\nOK\n" in told(b"OPTION ttyname=x\nSETDESC x\nGETPIN\nBYE\n", "a%b")
    assert b"D " not in told(b"SETERROR Bad\nGETPIN\n", "a")
    assert b"ERR 83886179" in told(b"GETPIN\n", None)
    assert b"ERR 83886179" in told(b"CONFIRM\n", "a")


# -- the holder -----------------------------------------------------------------------------------


class FakeAgent:
    def __init__(self, outcome: bytes | Exception) -> None:
        self._outcome = outcome
        self.closed = False

    async def perform(self, _operation: object, _description: str) -> tuple[bytes, bytes]:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome, b""

    def close(self) -> None:
        self.closed = True


SIGNING = b"SIGKEY " + b"A" * 40 + b"\nSETHASH 8 " + b"00" * 32 + b"\nPKSIGN\n"


@pytest.mark.parametrize(
    ("outcome", "answer", "noted"),
    [
        (b"(7:sig-val)", b"D (7:sig-val)\nOK\n", "done"),
        (AgentError(17), b"ERR 67108881 ", "failed"),
        (AgentError(99), b"ERR 67108963 ", "locked"),
        (ConnectionRefusedError(), b"ERR 67108941 ", "no agent"),
        (TimeoutError(), b"ERR 67108926 ", "no answer"),
    ],
)
def test_whatever_the_agent_does_the_guest_gets_an_answer(
    outcome: bytes | Exception, answer: bytes, noted: str, tmp_path: Path
) -> None:
    notes: list[str] = []
    agent = FakeAgent(outcome)

    async def connect() -> FakeAgent:
        return agent

    async def ask(_operation: str) -> bool | None:
        return None

    async def talk() -> bytes:
        holding = Holding(
            "kunde", OWN, "2.2.40", ("A" * 40,), (), connect, ask,
            lambda _operation, _what, result: notes.append(result),
        )  # fmt: skip
        path = tmp_path / "s"
        holder = Holder(holding, Grants(Custody(Where.HOST)))
        server = await asyncio.start_unix_server(holder.serve, str(path))
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(SIGNING + b"BYE\n")
        whole = await reader.read()
        server.close()
        holder.close()
        return whole

    assert answer in asyncio.run(talk())
    assert notes == [noted]
    assert agent.closed


# -- activity -------------------------------------------------------------------------------------


def test_activity_is_counted_and_stays_small(tmp_path: Path) -> None:
    activity = Activity(tmp_path / "state" / "kunde.jsonl")
    assert activity.read() == []
    for _ in range(3):
        activity.append("decrypt", "G", "done")
    activity.append("sign", "G", "denied")
    uses = activity.read()
    assert sum(use.count for use in uses) == 4
    assert (uses[-1].operation, uses[-1].outcome) == ("sign", "denied")
    line = len(activity._path.read_bytes().splitlines()[0]) + 1
    activity._path.write_bytes(activity._path.read_bytes().splitlines()[0] + b"\n" * 1)
    activity._path.write_bytes(activity._path.read_bytes() * (MOST_BYTES // line))
    for _ in range(3):
        activity.append("sign", "G", "last")
    assert activity._path.stat().st_size < MOST_BYTES * 0.6
    assert activity.read()[-1].outcome == "last"
    assert activity._path.stat().st_mode & 0o777 == 0o600


# -- verbs ----------------------------------------------------------------------------------------


def test_open_holds_the_key_and_sends_none(world: World, house: House) -> None:
    onboard(house, make_wish(settings=HOST))
    open_mailbox(house, NAME, headless=True)
    held = list(world.state["custodians"].values())
    assert [(each["fingerprint"], each["decrypt"], each["sign"]) for each in held] == [
        (OWN, "allow", "allow for 10 minutes")
    ]
    openpgp = world.desired[-1]["openpgp"]
    assert (openpgp["custody"], openpgp["agent"]) == ("host", "/run/mailbox/agent.sock")
    assert openpgp["key"]["secret"] is None and openpgp["key"]["passphrase"] is None
    assert openpgp["key"]["public"]
    config = next(iter(world.state["wardens"].values()))["config"]
    assert config["agent"]["connect"] == held[0]["socket"]
    close(house, NAME)
    assert world.state["custodians"] == {}


def test_a_key_on_the_volume_has_no_custodian(world: World, house: House) -> None:
    onboard(house, make_wish())
    open_mailbox(house, NAME, headless=True)
    assert world.state["custodians"] == {}
    assert world.desired[-1]["openpgp"]["custody"] == "guest"
    assert next(iter(world.state["wardens"].values()))["config"]["agent"] is None


def test_without_a_key_there_is_nothing_to_hold(world: World, house: House) -> None:
    from sandbox.lifecycle.onboard import KeyChoice

    onboard(house, make_wish(settings=HOST, key=KeyChoice()))
    open_mailbox(house, NAME, headless=True)
    assert world.state["custodians"] == {}
    assert world.desired[-1]["openpgp"]["key"] is None


def test_a_custodian_that_cannot_start_undoes_the_open(world: World, house: House) -> None:
    onboard(house, make_wish(settings=HOST))
    world.faults["custodians.start"] = MailboxError("No.", code="custody-failed")
    with pytest.raises(MailboxError):
        open_mailbox(house, NAME, headless=True)
    assert world.state["machines"] == {} and world.state["wardens"] == {}


def test_shred_takes_the_activity_along(house: House) -> None:
    onboard(house, make_wish(settings=HOST))
    path = house.paths.activity(NAME)
    Activity(path).append("decrypt", "G", "done")
    shred(house, NAME)
    assert not path.exists()


# -- a key that the user holds --------------------------------------------------------------------

USERS = replace(SETTINGS, custody=Custody(Where.HOST, holder=HeldBy.USER))


def test_no_copy_is_made_of_a_key_that_the_user_holds(world: World, house: House) -> None:
    onboard(house, make_wish(settings=USERS))
    ring = house.paths.gnupg(NAME)
    assert sorted(path.name for path in ring.iterdir()) == [f"{OWN}.public", f"{BERT}.public"]
    open_mailbox(house, NAME, headless=True)
    (held,) = world.state["custodians"].values()
    assert (held["fingerprint"], held["home"]) == (OWN, None)
    assert world.desired[-1]["openpgp"]["key"]["secret"] is None
    assert [each.problem for each in list_keys(house, NAME)] == ["", ""]
    shred(house, NAME)
    assert OWN in world.keys  # the user's own GnuPG is nobody else's


def test_a_key_whose_secret_the_user_lacks_is_not_taken(
    world: World, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeUserKeyring, "has_secret", lambda _self, _fingerprint: False)
    with pytest.raises(MailboxError) as caught:
        onboard(house, make_wish(settings=USERS))
    assert caught.value.code == "key-not-found" and "smartcard" in caught.value.resolution
    assert house.records.find(NAME) is None and world.state["vault"] == {}


def test_a_key_that_the_user_holds_is_shown_as_it_is_there(house: House) -> None:
    onboard(house, make_wish(settings=USERS))
    assert show_key(house, NAME, None).details.primary.secret.startswith("D276")


def test_a_lost_card_is_told_by_the_list(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    onboard(house, make_wish(settings=USERS))
    monkeypatch.setattr(FakeUserKeyring, "has_secret", lambda _self, _fingerprint: False)
    assert list_keys(house, NAME)[0].problem == "has no secret part here"


def test_a_ring_without_a_copy_is_not_locked(house: House) -> None:
    onboard(house, make_wish(settings=USERS))
    profile = house.records.load(NAME)
    assert not rings.is_locked(house, profile, "passphrase")
    house.profile_keyring(NAME).destroy()
    assert rings.is_locked(house, profile, "passphrase")
    keys = rings.renew(house, profile, None, (), {}, "passphrase", lambda _: "")
    assert keys.fingerprint == OWN
    assert not (house.paths.gnupg(NAME) / f"{OWN}.secret").exists()


def test_only_a_key_on_the_host_can_be_the_users(house: House) -> None:
    onboard(house, make_wish(settings=USERS))
    document = write_profile(house.records.load(NAME))
    assert document["keys"]["holder"] == "user"
    document["keys"]["custody"] = "guest"
    with pytest.raises(InvalidInputError) as caught:
        read_profile(document, house.records.template("default"))
    assert "keys.holder" in caught.value.details


def test_who_cancels_is_asked_no_more_for_one_mail_even_where_all_is_allowed() -> None:
    grants = Grants(Custody(Where.HOST))
    grants.decline("decrypt", now=0)
    assert [grants.decide("decrypt", now) for now in (1, 29, 31)] == [False, False, True]
    assert grants.decide("sign", 1) is True
    grants.decline("decrypt", now=40)
    grants.allow(60, now=41)
    assert grants.decide("decrypt", 42) is True


# -- the warden's configuration -------------------------------------------------------------------


def warden_config(agent: object) -> bytes:
    return json.dumps(
        {
            "profile_id": "x", "name": "kunde", "hostname": "kunde", "connect_deadline_s": 10,
            "channel_socket": "/r/c", "control_socket": "/r/w", "log_file": "/r/l",
            "forwards": [], "agent": agent,
        }
    ).encode()  # fmt: skip


def test_the_warden_carries_the_agent_from_socket_to_socket() -> None:
    config = parse_config(warden_config({"listen": "/run/mailbox/agent.sock", "connect": "/r/a"}))
    assert config.agent is not None and config.agent.local
    assert (config.agent.listen, config.agent.connect_host) == ("/run/mailbox/agent.sock", "/r/a")
    assert parse_config(warden_config(None)).agent is None


@pytest.mark.parametrize(
    "agent", ["x", {"listen": "a", "connect": "/b"}, {"listen": "/a"}, {"listen": "/a", "port": 1}]
)
def test_a_malformed_agent_is_refused(agent: object) -> None:
    with pytest.raises(MailboxError):
        parse_config(warden_config(agent))


def test_the_commands_are_there() -> None:
    assert {"activity", "allow"} <= set(key_commands.keys.commands)
