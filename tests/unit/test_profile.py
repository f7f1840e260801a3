"""Profiles: what is written is read back; what is malformed is said, all of it, with its place."""

from __future__ import annotations

import tomllib
import uuid
from datetime import date
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.account import Account
from sandbox.model.dav import Collection, Password, parse_place, parse_url
from sandbox.model.endpoints import Endpoint, Security
from sandbox.model.errors import Exit, InvalidInputError
from sandbox.model.names import COLOURS
from sandbox.model.openpgp import Correspondent, Keys
from sandbox.model.profile import (
    Display,
    Machine,
    Policy,
    Profile,
    Settings,
    read_profile,
    read_template,
    write_profile,
)
from tests.unit.fakes import ACCOUNT, BERT, OWN, SETTINGS

GOOD = "https://dav.kunde.test/anna/"
PLAIN = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30)
LINES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=60
)
ENDPOINTS = st.builds(
    Endpoint,
    st.sampled_from(["imap.kunde.test", "mx-1.a.b.example"]),
    st.integers(1, 65535),
    st.sampled_from(Security),
    st.none() | st.tuples(st.sampled_from(["127.0.0.1", "::1", "x.test"]), st.integers(1, 65535)),
)
COLLECTIONS = st.lists(
    st.builds(
        Collection,
        st.from_regex(
            r"https://dav(-[a-z])?\.kunde\.test(:8443)?/[a-z0-9~%]{1,9}/", fullmatch=True
        ),
        PLAIN,
        PLAIN,
        st.sampled_from(Password),
        st.none() | st.tuples(st.sampled_from(["127.0.0.1", "::1"]), st.integers(1, 65535)),
    ),
    max_size=3,
    unique_by=lambda each: each.url,
).map(tuple)
FINGERPRINTS = st.from_regex(r"[0-9A-F]{40}|[0-9A-F]{64}", fullmatch=True)
DAYS = st.just("") | st.dates().map(date.isoformat)
SIZES = st.integers(1, 999_999).flatmap(
    lambda number: st.sampled_from([number * 1024**3, number * 1024**4, number * 1024**2])
)
PROFILES = st.builds(
    Profile,
    id=st.uuids().filter(lambda each: each.int != 0),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    template=st.just("default"),
    colour=st.sampled_from(sorted(COLOURS.values())),
    created=st.just("2026-01-01T00:00:00+00:00"),
    account=st.builds(
        Account,
        address=st.just("anna@kunde.test"),
        display_name=PLAIN,
        login=PLAIN,
        imap=ENDPOINTS,
        smtp=ENDPOINTS,
        signature=LINES,
        ca=st.lists(
            st.just("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), max_size=2
        ).map(tuple),
        calendars=COLLECTIONS,
        address_books=COLLECTIONS,
    ),
    settings=st.builds(
        Settings,
        client=st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True),
        machine=st.builds(
            Machine,
            memory=SIZES.filter(lambda size: size >= 768 * 1024**2),
            cpus=st.integers(1, 64),
        ),
        volume_size=SIZES.filter(lambda size: size >= 64 * 1024**2),
        policy=st.builds(Policy, st.booleans(), st.booleans()),
        display=st.builds(
            Display,
            st.sampled_from(["host", "de", "us"]),
            st.sampled_from(["en", "de"]),
            st.sampled_from(["host", "Europe/Berlin", "Etc/GMT+3"]),
        ),
    ),
    keys=st.builds(
        Keys,
        st.none() | FINGERPRINTS,
        st.lists(
            st.builds(Correspondent, FINGERPRINTS, st.lists(PLAIN, max_size=2).map(tuple), DAYS),
            max_size=3,
        ).map(tuple),
        retired=st.lists(FINGERPRINTS, max_size=2, unique=True).map(tuple),
        expires=DAYS,
    ).filter(lambda keys: keys.fingerprint not in keys.retired),
)
TEMPLATE = Settings("other", Machine(4 * 1024**3, 4), 1024**4, Policy(True, True), Display())
PROFILE = Profile(
    id=uuid.UUID(int=1),
    name="clientA",
    template="default",
    colour="#2a7f62",
    created="2026-01-01T00:00:00+00:00",
    account=ACCOUNT,
    settings=SETTINGS,
    keys=Keys(OWN, (Correspondent(BERT, ("bert@partner.test",)),)),
)


@given(PROFILES)
def test_what_is_written_is_read_back(profile: Profile) -> None:
    text = tomli_w.dumps(write_profile(profile), multiline_strings=True)
    assert read_profile(tomllib.loads(text), TEMPLATE) == profile


def test_a_profile_takes_what_it_does_not_say_from_its_template() -> None:
    document = write_profile(PROFILE)
    for table in ("machine", "volume", "policy", "display", "client"):
        del document[table]
    assert read_profile(document, TEMPLATE).settings == TEMPLATE


def problems_of(document: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidInputError) as refused:
        read_profile(document, SETTINGS)
    assert refused.value.exit_code == Exit.USAGE
    return refused.value.problems


def changed(place: str, value: Any) -> dict[str, Any]:
    document = write_profile(PROFILE)
    table: Any = document
    *folders, key = place.split(".")
    for folder in folders:
        table = table[folder]
    table[key] = value
    return document


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("version", 2),
        ("version", "1"),
        ("id", "no-uuid"),
        ("id", str(uuid.UUID(int=0))),
        ("name", "../x"),
        ("name", 5),
        ("colour", "pink"),
        ("client", "Thunder bird"),
        ("template", 1),
        ("unknown", 1),
        ("account", "none"),
        ("account.address", "anna"),
        ("account.display_name", "a\nb"),
        ("account.signature", "a\0b"),
        ("account.ca", ["no certificate"]),
        ("account.ca", "text"),
        ("account.passwort", "x"),
        ("account.imap.host", "127.0.0.1"),
        ("account.imap.port", 0),
        ("account.imap.port", "993"),
        ("account.imap.security", "none"),
        ("account.imap.connect", "nowhere"),
        ("account.imap.connect", "x:²"),
        ("account.smtp.host", ""),
        ("openpgp.fingerprint", "ABCD"),
        ("openpgp.correspondents", "none"),
        ("openpgp.extra", True),
        ("openpgp.expires", "soon"),
        ("openpgp.expires", 5),
        ("openpgp.retired", "ABCD"),
        ("openpgp.retired", ["ABCD"]),
        ("machine.memory", "100M"),
        ("machine.cpus", 0),
        ("machine.cpus", True),
        ("volume.size", "1M"),
        ("policy.remote_content", "yes"),
        ("policy.remote_contents", True),
        ("display.keyboard", "de; reboot"),
        ("display.language", "german"),
        ("display.time_zone", "../../etc"),
    ],
)
def test_each_malformed_entry_is_said_with_its_place(place: str, value: Any) -> None:
    found = problems_of(changed(place, value))
    assert all(problem.startswith(f"{place}: ") or f"{place}." in problem for problem in found)


@pytest.mark.parametrize("value", [{"fingerprint": "AB"}, {}, {"fingerprint": OWN, "x": 1}, 3])
def test_a_malformed_correspondent_is_said_by_its_number(value: Any) -> None:
    document = changed("openpgp.correspondents", [{"fingerprint": OWN}, value])
    assert all("openpgp.correspondents[1]" in problem for problem in problems_of(document))


@pytest.mark.parametrize("key", ["calendars", "address_books"])
@pytest.mark.parametrize(
    "value",
    [
        {},
        3,
        {"url": "http://dav.kunde.test/anna/"},
        {"url": "https://dav.kunde.test/"},
        {"url": "https://anna:pw@dav.kunde.test/anna/"},
        {"url": "https://127.0.0.1/anna/"},
        {"url": "https://dav.kunde.test/anna/?export"},
        {"url": "https://dav.kunde.test:0/anna/"},
        {"url": "https://dav.kunde.test/an na/"},
        {"url": GOOD, "password": "geheim"},
        {"url": GOOD, "name": "a\nb"},
        {"url": GOOD, "connect": "nowhere"},
        {"url": GOOD, "color": "red"},
    ],
)
def test_a_malformed_collection_is_said_by_its_number(key: str, value: Any) -> None:
    document = changed(f"account.{key}", [{"url": "https://dav.kunde.test/other/"}, value])
    assert all(f"account.{key}[1]" in problem for problem in problems_of(document))


def test_a_collection_is_named_once() -> None:
    (problem,) = problems_of(changed("account.calendars", [{"url": GOOD}, {"url": GOOD}]))
    assert problem == f"account.calendars: {GOOD} is there twice"
    many = [{"url": f"{GOOD}{number}/"} for number in range(17)]
    assert "more than 16" in problems_of(changed("account.address_books", many))[0]


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("dav.kunde.test", "https://dav.kunde.test/"),
        ("dav.kunde.test:8443", "https://dav.kunde.test:8443/"),
        ("HTTPS://DAV.kunde.test:443/a%20b/ü", "https://dav.kunde.test/a%20b/%C3%BC"),
        ("https://dav.könig.test/c/", "https://dav.xn--knig-5qa.test/c/"),
    ],
)
def test_a_place_has_one_form(said: str, url: str) -> None:
    assert parse_place(said) == url
    assert parse_url(url) == url


def test_addresses_of_a_correspondent_are_texts() -> None:
    entry = {"fingerprint": OWN, "addresses": [1]}
    (problem,) = problems_of(changed("openpgp.correspondents", [entry]))
    assert problem.startswith("openpgp.correspondents[0].addresses: ")


def test_all_problems_are_said_at_once() -> None:
    document = changed("account.imap.port", 0)
    document["colour"], document["machine"]["cpus"], document["nonsense"] = "pink", 0, 1
    del document["account"]["address"]
    places = {problem.partition(":")[0] for problem in problems_of(document)}
    assert places == {"account.imap.port", "colour", "machine.cpus", "nonsense", "account.address"}


def test_an_empty_profile_says_everything_that_is_missing() -> None:
    found = "\n".join(problems_of({}))
    for place in ("id", "name", "account.address", "account.imap.host", "account.smtp.host"):
        assert f"{place}: is missing" in found


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ),
    st.sampled_from(["id", "account", "openpgp", "machine", "volume", "policy", "display", "name"]),
)
def test_no_value_makes_reading_fail_otherwise(value: Any, key: str) -> None:
    document = write_profile(PROFILE) | {key: value}
    try:
        read_profile(document, SETTINGS)
    except InvalidInputError as error:
        assert error.problems


def test_templates_are_as_strict() -> None:
    good = {"description": "x", "client": "thunderbird", "machine": {"memory": "1G", "cpus": 1}}
    assert read_template(good, "t").machine == Machine(1024**3, 1)
    with pytest.raises(InvalidInputError) as refused:
        read_template(good | {"machine": {"memory": "1K"}, "x": 1}, "t")
    assert len(refused.value.problems) == 2


def test_a_template_cannot_name_a_customer() -> None:
    with pytest.raises(InvalidInputError):
        read_template({"client": "thunderbird", "account": {"address": "a@b.test"}}, "t")
