"""What a guest may ask of a key on the host: recorded sessions of GnuPG, and everything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.channel import assuan
from sandbox.channel.assuan import Decrypt, HangUp, Refused, Reply, Session, Sign
from sandbox.channel.sexp import SexpError, check_ciphertext

RECORDED = sorted((Path(__file__).parents[1] / "data" / "assuan").glob("*.txt"))
SIGNER, READER, STRANGER = "A" * 40, "B" * 40, "C" * 40
DIGEST = "00" * 32
ECDH = b"(7:enc-val(4:ecdh(1:s3:abc)(1:e2:%\n)))"


def session() -> Session:
    return Session([SIGNER], [READER], "2.2.40")


def said(events: list[assuan.Event]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Reply))


def lines_of(path: Path) -> list[bytes]:
    return [
        line.decode("unicode_escape").encode("latin-1") for line in path.read_bytes().splitlines()
    ]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_sessions_of_gnupg_go_through(path: Path) -> None:
    lines = lines_of(path)
    grips = set(re.findall(rb"\b[0-9A-F]{40}\b", b"\n".join(x for x in lines if b"KEY" in x[:8])))
    mine = [grip.decode() for grip in grips]
    guest = Session(mine, mine, "2.2.40")
    done: list[str] = []
    for line in lines:
        events = guest.feed(line + b"\n")
        assert not [event for event in events if isinstance(event, Refused | HangUp)]
        for event in events:
            if isinstance(event, Sign | Decrypt):
                done.append(type(event).__name__)
                assert said(guest.succeed(b"(5:value1:x)")) == b"D (5:value1:x)\nOK\n"
    expected = {"decrypt": ["Decrypt"], "list": []}.get(path.stem.split("-")[-1], ["Sign"])
    assert done == expected


def test_there_are_recorded_sessions_of_both_generations() -> None:
    programs = {"-".join(path.stem.split("-")[:2]) for path in RECORDED}
    assert programs == {"gpg-2.2", "gpg-2.4", "evolution-2.4"}


def test_signing_takes_key_and_digest_as_they_were_said() -> None:
    guest = session()
    events = guest.feed(f"SIGKEY {SIGNER}\nSETHASH 8 {'AB' * 32}\nPKSIGN\n".encode())
    assert events[-1] == Sign(SIGNER, 8, b"\xab" * 32)
    assert guest.busy
    assert guest.feed(b"NOP\n") == []  # waits until the operation has ended
    assert said(guest.succeed(b"a%b\nc")) == b"D a%25b%0Ac\nOK\nOK\n"


def test_decrypting_takes_the_ciphertext_in_pieces() -> None:
    guest = session()
    asked = guest.feed(f"SETKEY {READER}\nPKDECRYPT\n".encode())
    assert said(asked).endswith(b"INQUIRE CIPHERTEXT\n")
    guest.feed(b"D " + ECDH[:10] + b"\n")
    events = guest.feed(b"D " + ECDH[10:].replace(b"%", b"%25").replace(b"\n", b"%0a") + b"\nEND\n")
    assert events == [Decrypt(READER, ECDH)]
    assert said(guest.succeed(b"x", b"PADDING 0")) == b"S PADDING 0\nD x\nOK\n"


def test_a_canceled_inquiry_starts_nothing() -> None:
    guest = session()
    guest.feed(f"SETKEY {READER}\nPKDECRYPT\n".encode())
    assert said(guest.feed(b"CAN\n")).startswith(b"ERR 67108963 ")
    assert not guest.busy


FORBIDDEN = [
    "EXPORT_KEY", "IMPORT_KEY", "KEYWRAP_KEY --export", "GENKEY --preset", "DELETE_KEY", "PASSWD",
    "PRESET_PASSPHRASE", "CLEAR_PASSPHRASE", "GET_PASSPHRASE", "GET_CONFIRMATION", "LISTTRUSTED",
    "MARKTRUSTED", "ISTRUSTED", "LEARN", "READKEY", "PUTVAL", "GETVAL", "UPDATESTARTUPTTY",
    "KILLAGENT", "RELOADAGENT", "KEYATTR", "KEYTOCARD", "GETEVENTCOUNTER", "HELP", "D", "END",
    "", " ", "\x00", "PKSIGN2", "PKDECRYPT_KEM",
]  # fmt: skip


@pytest.mark.parametrize("word", [word for word in FORBIDDEN if word])
def test_every_other_command_is_refused(word: str) -> None:
    events = session().feed(f"{word} {SIGNER}\n".encode())
    assert isinstance(events[0], Refused)
    assert said(events).startswith(b"ERR 67109115 ")


@pytest.mark.parametrize(
    "lines",
    [
        f"SIGKEY {STRANGER}",
        f"SETKEY {STRANGER}",
        f"SIGKEY {SIGNER.lower()}",
        f"SIGKEY {SIGNER} {SIGNER}",
        f"KEYINFO {STRANGER}",
        "KEYINFO --list",
        "KEYINFO --ssh-list",
        f"HAVEKEY {STRANGER}",
        "HAVEKEY",
        "PKSIGN",
        "PKDECRYPT",
        f"SIGKEY {SIGNER}\nPKSIGN",
        f"SIGKEY {READER}\nSETHASH 8 {DIGEST}\nPKSIGN",
        f"SETKEY {SIGNER}\nPKDECRYPT",
        f"SIGKEY {SIGNER}\nSETHASH 8 {DIGEST}\nRESET\nPKSIGN",
        f"SIGKEY {SIGNER}\nSETHASH 8 {DIGEST}\nSIGKEY {SIGNER}\nPKSIGN",
        f"SETHASH 2 {'00' * 20}",
        "SETHASH --hash=sha1 00",
        "SETHASH --inquire",
        f"SETHASH 8 {DIGEST}00",
        f"SIGKEY {SIGNER}\nSETHASH 8 {DIGEST}\nPKSIGN --preset=1",
        f"SETKEY {READER}\nPKDECRYPT --kem=PGP",
        "OPTION pinentry-mode=loopback",
        "OPTION s2k-count=1",
        "OPTION ephemeral=1",
        "GETINFO socket_name",
        "GETINFO pid",
        "GETINFO ssh_socket_name",
        "GETINFO jent_active",
    ],
)
def test_what_is_not_for_this_guest_is_an_error(lines: str) -> None:
    events = session().feed(lines.encode() + b"\n")
    assert said(events).splitlines()[-1].startswith(b"ERR ")
    assert not [event for event in events if isinstance(event, Sign | Decrypt)]


def test_keys_are_listed_as_gnupg_asks_for_them() -> None:
    listed = said(session().feed(b"HAVEKEY --list=1000\n"))
    assert listed == b"D " + b"\xaa" * 20 + b"\xbb" * 20 + b"\nOK\n"
    assert said(session().feed(f"HAVEKEY {STRANGER} {READER}\n".encode())) == b"OK\n"
    assert b" D - - - P - - -\nOK\n" in said(session().feed(f"KEYINFO {SIGNER}\n".encode()))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"x" * 1001, "a line is too long"),
        (b"NOP " + b"x" * 997 + b"\n", "a line is too long"),
        (f"SETKEY {READER}\nPKDECRYPT\n".encode() + b"D " + b"x" * 900 + b"\n", ""),
        (f"SETKEY {READER}\nPKDECRYPT\n".encode() + b"D xxxxxxxx\n" * 600, "too much data"),
        (f"SETKEY {READER}\nPKDECRYPT\nD %zz\n".encode(), "malformed data"),
        (f"SETKEY {READER}\nPKDECRYPT\nPKSIGN\n".encode(), "a command in the middle of data"),
        (b"NOP\n" * (assuan.COMMAND_LIMIT + 1), "too many commands"),
    ],
)  # fmt: skip
def test_a_guest_that_overdoes_it_is_hung_up_on(lines: bytes, reason: str) -> None:
    guest = session()
    ends = [event.reason for event in guest.feed(lines) if isinstance(event, HangUp)]
    assert ends == ([reason] if reason else [])
    assert guest.over is bool(reason)
    assert not (guest.over and guest.feed(b"NOP\n"))


def test_what_waits_behind_an_operation_is_bounded() -> None:
    guest = session()
    guest.feed(f"SIGKEY {SIGNER}\nSETHASH 8 {DIGEST}\nPKSIGN\n".encode())
    events = guest.feed(b"NOP\n" * 20_000)
    assert events == [HangUp("too much at once")]


def test_a_result_that_is_too_large_is_an_error() -> None:
    guest = session()
    guest.feed(f"SIGKEY {SIGNER}\nSETHASH 8 {DIGEST}\nPKSIGN\n".encode())
    assert said(guest.succeed(b"x" * (assuan.RESULT_LIMIT + 1))).startswith(b"ERR ")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"()", b"(7:enc-val)", b"(7:enc-val(4:ecdh))", ECDH[:-1], ECDH + b")",
        b"(7:enc-val(3:rsa(1:a3:abc)(1:a3:abc)))", b"(7:enc-val(3:rsa(1:b3:abc)))",
        b"(7:enc-val(5:flags3:raw)(3:rsa(1:a3:abc)))", b"(3:foo(3:rsa(1:a3:abc)))",
        b"(7:enc-val(3:rsa(1:a03:abc)))", b"(7:enc-val(3:rsa(1:a9999:abc)))",
        b"(7:enc-val(3:rsa(1:a-3:abc)))", b"(7:enc-val(3:rsa(1:a(3:abc))))",
    ],
)  # fmt: skip
def test_only_a_wrapped_session_key_is_decrypted(data: bytes) -> None:
    with pytest.raises(SexpError):
        check_ciphertext(data)


def test_each_kind_of_wrapped_key_passes() -> None:
    assert check_ciphertext(ECDH) == ECDH
    assert check_ciphertext(b"(7:enc-val(3:rsa(1:a3:abc)))\0") == b"(7:enc-val(3:rsa(1:a3:abc)))"
    assert check_ciphertext(b"(7:enc-val(3:elg(1:a1:x)(1:b1:y)))")


words = st.sampled_from(sorted(assuan._COMMANDS) + [word.encode() for word in FORBIDDEN])
arguments = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([SIGNER.encode(), READER.encode(), STRANGER.encode(), b"8 " + DIGEST.encode()]),
)
any_lines = st.lists(st.tuples(words, arguments).map(lambda pair: b" ".join(pair) + b"\n"))


@given(st.lists(st.one_of(st.binary(max_size=200), any_lines.map(b"".join))), st.binary())
def test_whatever_comes_only_own_keys_are_used(chunks: list[bytes], result: bytes) -> None:
    guest = session()
    for chunk in chunks:
        pending = guest.feed(chunk)
        while pending:
            operations = [event for event in pending if isinstance(event, Sign | Decrypt)]
            assert len(operations) <= 1
            for event in operations:
                assert event.grip == (SIGNER if isinstance(event, Sign) else READER)
            pending = guest.succeed(result) if operations else []


def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Real bytes with a few pieces cut out, put in twice, or written over."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 60)))
        data[start:end] = draw(
            st.one_of(
                st.binary(max_size=12),
                st.just(b""),
                st.just(bytes(data[start:end]) * 2),
                st.sampled_from([STRANGER.encode(), b"\nEND\n", b"\nCAN\n", b"%0A", b"\0"]),
            )
        )
    return bytes(data)


@st.composite
def damaged_sessions(draw: st.DrawFn) -> tuple[bytes, set[str]]:
    """A recorded session of a real program, damaged, and the keygrips that were its own."""
    lines = lines_of(draw(st.sampled_from(RECORDED)))
    whole = b"".join(line + b"\n" for line in lines)
    named = {word.decode() for word in re.findall(rb"\b[0-9A-F]{40}\b", whole)}
    return damaged(draw, whole), named - {STRANGER}


@given(damaged_sessions(), st.integers(1, 4000))
def test_a_damaged_session_gets_nothing_that_the_whole_one_did_not(
    recorded: tuple[bytes, set[str]], size: int
) -> None:
    stream, own = recorded
    guest = Session(own, own, "2.2.40")
    for start in range(0, len(stream), size):
        pending = guest.feed(stream[start : start + size])
        while pending:
            operations = [event for event in pending if isinstance(event, Sign | Decrypt)]
            for event in operations:
                assert event.grip in own
                if isinstance(event, Decrypt):
                    assert check_ciphertext(event.ciphertext) == event.ciphertext
                else:
                    assert len(event.digest) == assuan.DIGESTS[event.algorithm]
            pending = guest.fail(assuan.TIMEOUT) if operations else []


@given(st.data())
def test_a_damaged_ciphertext_is_refused_or_is_one(data: st.DataObject) -> None:
    real = (ECDH, b"(7:enc-val(3:rsa(1:a3:abc)))", b"(7:enc-val(3:elg(1:a1:x)(1:b1:y)))")
    broken = data.draw(st.composite(lambda draw: damaged(draw, draw(st.sampled_from(real))))())
    try:
        taken = check_ciphertext(broken)
    except SexpError:
        return
    assert taken == broken.removesuffix(b"\0")
    assert taken.startswith(b"(7:enc-val(") and taken.endswith(b"))")


@given(st.binary(max_size=3000))
def test_data_survives_its_lines(data: bytes) -> None:
    lines = assuan.data_lines(data).splitlines()
    assert all(line.startswith(b"D ") and len(line) <= assuan.LINE_LIMIT for line in lines)
    assert b"".join(assuan.unescape(line[2:]) for line in lines) == data


@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1))
def test_how_the_bytes_arrive_does_not_matter(pieces: list[bytes]) -> None:
    whole, parted = session(), session()
    together = said(whole.feed(b"".join(pieces)))
    assert b"".join(said(parted.feed(piece)) for piece in pieces) == together
