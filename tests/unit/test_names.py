"""Names, addresses, hosts, ports, sizes, fingerprints and colours: what is let in, what is not."""

from __future__ import annotations

import re
import string
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox.model import names
from sandbox.model.endpoints import (
    Security,
    default_security,
    host_problem,
    parse_connect,
    parse_server,
    port_problem,
)
from sandbox.model.errors import MailboxError
from sandbox.state.paths import SOCKET_LIMIT, Paths, find_paths

LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True).filter(
    lambda label: not label.startswith("xn--")
)
HOST = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)


@given(NAME)
def test_names_are_taken(name: str) -> None:
    assert names.name_problem(name) is None
    assert names.same_name(name, name.upper()) and names.same_name(name.lower(), name)


@given(st.text(max_size=80))
@example("a\n")
@example("")
@example("../a")
@example("a/b")
@example("-rf")
@example(".hidden")
@example("é")
@example("a" * 64)
@example("a\0")
def test_a_name_that_is_taken_can_only_be_one_plain_file_name(name: str) -> None:
    if names.name_problem(name) is None:
        assert 1 <= len(name) <= 63
        assert set(name) <= set(string.ascii_letters + string.digits + "._-")
        assert name[0].isalnum()
    else:
        assert not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name)


@given(NAME, st.integers(1, 75))
def test_sockets_fit_whatever_the_name(name: str, length: int) -> None:
    paths = find_paths({"MAILBOX_HOME": "/" + "h" * (length - 1)})
    for socket in (paths.channel_socket(name), paths.control_socket(name)):
        assert len(bytes(socket)) <= SOCKET_LIMIT
    assert paths.machine(name).parent == paths.runtime


def test_a_home_without_room_for_sockets_is_refused() -> None:
    with pytest.raises(MailboxError) as refused:
        find_paths({"MAILBOX_HOME": "/" + "h" * 100})
    assert refused.value.code == "path-too-long"


def test_no_folder_for_sockets_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise PermissionError("/tmp/x is owned by uid 7")

    monkeypatch.setattr("platformdirs.user_runtime_path", refuse)
    with pytest.raises(MailboxError) as refused:
        find_paths({})
    assert refused.value.code == "runtime-folder" and "uid 7" in refused.value.brief


@given(NAME, NAME)
def test_no_two_names_share_a_file(one: str, other: str) -> None:
    paths = find_paths({"MAILBOX_HOME": "/h"})
    mine, theirs = _files(paths, one), _files(paths, other)
    if one != other:
        assert not mine & theirs


def _files(paths: Paths, name: str) -> set[object]:
    return {
        paths.profile(name),
        paths.volume(name),
        paths.blank(name),
        paths.gnupg(name),
        paths.journal(name),
        paths.tombstone(name),
    }


@given(st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,30}", fullmatch=True), HOST)
def test_addresses_are_taken(local: str, host: str) -> None:
    assert names.address_problem(f"{local}@{host}") is None


@pytest.mark.parametrize(
    "address",
    [
        "",
        "anna",
        "@kunde.test",
        "anna@",
        "anna@kunde",
        "anna@localhost",
        "anna@@kunde.test",
        "an na@kunde.test",
        ".anna@kunde.test",
        "anna.@kunde.test",
        "an..na@kunde.test",
        "anna@kunde..test",
        "anna@192.0.2.1",
        "anna@[192.0.2.1]",
        "anna@kunde.test\n",
        "anna\r\nBcc: x@kunde.test",
        "Anna <anna@kunde.test>",
        '"anna"@kunde.test',
        "a" * 65 + "@kunde.test",
        "anna@-kunde.test",
    ],
)
def test_malformed_addresses_are_refused(address: str) -> None:
    assert names.address_problem(address)


@given(HOST, st.integers(1, 65535))
def test_servers_are_read_as_written(host: str, port: int) -> None:
    endpoint = parse_server(f"{host}:{port}", 993)
    assert (endpoint.host, endpoint.port) == (host, port)
    assert str(endpoint) == f"{host}:{port}"
    assert parse_server(host.upper(), port) == endpoint


@given(st.text(max_size=60))
@example("imap.kunde.test:0993٣")
@example("imap.kunde.test:²")
@example("imap.kunde.test:")
@example(":993")
@example("a.b\0:1")
def test_any_text_is_a_server_or_a_value_error(text: str) -> None:
    try:
        endpoint = parse_server(text, 993)
    except ValueError as error:
        assert str(error)
    else:
        assert host_problem(endpoint.host) is None
        assert port_problem(endpoint.port) is None
        assert endpoint.host.isascii() and endpoint.host == endpoint.host.lower()


@pytest.mark.parametrize(
    "host",
    [
        *("", "localhost", "imap", "127.0.0.1", "::1", "[::1]", "127.1", "1.2.3", "0x7f.1"),
        *("-a.test", "a-.test", "a_b.test", "a..test", ".test", "a.test.", "a b.test"),
        *("a.0x7f", "a.test/x", "a" * 64 + ".test", ".".join(["abc"] * 70)),
    ],
)
def test_what_is_no_full_host_name_is_refused(host: str) -> None:
    assert host_problem(host)


@given(st.ip_addresses())
def test_addresses_are_no_host_names(address: object) -> None:
    assert host_problem(str(ip_address(str(address))))


def test_international_names_become_ascii() -> None:
    assert parse_server("imap.münchen.example", 993).host == "imap.xn--mnchen-3ya.example"


@pytest.mark.parametrize("port", [0, -1, 65536, True, "993", 9.5, None])
def test_what_is_no_port_is_refused(port: object) -> None:
    assert port_problem(port)


@pytest.mark.parametrize(
    ("port", "security"), [(993, "tls"), (465, "tls"), (143, "starttls"), (587, "starttls")]
)
def test_security_follows_the_port(port: int, security: str) -> None:
    assert default_security(port) is Security(security)


def test_a_detour_has_four_parts() -> None:
    assert parse_connect("Imap.Kunde.test:993:127.0.0.1:10993") == (
        "imap.kunde.test",
        993,
        "127.0.0.1",
        10993,
    )


@pytest.mark.parametrize(
    "text", ["", "a:1", "a:1:b", "a:x:b:1", "a:0:b:1", "a:1:b:99999", ":1:b:1"]
)
def test_what_is_no_detour_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_connect(text)


@given(st.integers(1, 999_999), st.sampled_from("KMGT"), st.sampled_from(["", "B", "iB"]))
def test_sizes_are_binary(number: int, unit: str, suffix: str) -> None:
    size = number * 1024 ** ("KMGT".index(unit) + 1)
    for text in (f"{number}{unit}{suffix}", f" {number} {unit.lower()}{suffix} "):
        if size >= 64 * 1024**2:
            assert names.parse_size(text) == size
        else:
            with pytest.raises(ValueError, match="too small"):
                names.parse_size(text)


def test_too_little_memory_is_told_as_such() -> None:
    assert names.parse_memory("768M") == 768 * 1024**2
    with pytest.raises(ValueError, match="a mail client needs at least 768M"):
        names.parse_memory("1M")


@pytest.mark.parametrize(
    "text", ["", "20", "G", "-1G", "1.5G", "20X", "20GG", "٣٣G", "1e3G", "1G\n1"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        names.parse_size(text)


@given(st.from_regex(r"([0-9a-fA-F]{4} ?){10}", fullmatch=True))
def test_fingerprints_lose_spaces_and_gain_capitals(text: str) -> None:
    fingerprint = names.parse_fingerprint(text)
    assert re.fullmatch("[0-9A-F]{40}", fingerprint)
    assert names.parse_fingerprint(f"0x{fingerprint.lower()}") == fingerprint


@given(st.from_regex(r"[0-9A-F]{1,39}|[0-9A-F]{41,63}|[0-9A-F]{65,70}|[G-Z]{40}", fullmatch=True))
def test_short_key_ids_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a full fingerprint"):
        names.parse_fingerprint(text)


@given(st.from_regex(r"#[0-9a-fA-F]{6}", fullmatch=True))
def test_colours_are_read_as_written(text: str) -> None:
    assert names.parse_colour(text) == text.lower()


@given(st.sampled_from(sorted(names.COLOURS)))
def test_colours_have_names(name: str) -> None:
    assert names.parse_colour(name.upper()) == names.COLOURS[name]


@pytest.mark.parametrize("text", ["", "#fff", "2a7f62", "#2a7f6g", "pink", "#2a7f62;", "#2a7f62\n"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a colour"):
        names.parse_colour(text)


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31m", "a\x7f", "a\x9bm", "\udcff", "a" * 201])
def test_labels_cannot_steer_a_terminal(text: str) -> None:
    assert names.text_problem(text)


@pytest.mark.parametrize("text", ["", "Anna Kundin", "Łukasz", "日本", 'O\'Neil <x> & "y"'])
def test_labels_of_all_languages_are_taken(text: str) -> None:
    assert names.text_problem(text) is None


def test_signatures_have_lines() -> None:
    assert names.signature_problem("Anna\n\tKunde GmbH") is None
    assert names.signature_problem("a\0b")
    assert names.signature_problem("\udcff")
    assert names.signature_problem("a" * 10_001)


@given(st.integers(0, 2**60))
def test_sizes_are_shown_short(size: int) -> None:
    assert re.fullmatch(r"[\d.]{1,9} (B|KiB|MiB|GiB|TiB)", names.human_size(size))
