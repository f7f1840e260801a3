"""Recovery codes: what people do when they copy one from paper, and what must be found."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.model.recovery import ALPHABET, GROUP, GROUPS, LENGTH, new_code, parse_code

CODES = st.builds(new_code)
PLACES = st.integers(0, LENGTH - 1)


def typed(code: str) -> list[str]:
    return list(code.replace("-", ""))


def refusal(text: str) -> str:
    with pytest.raises(ValueError) as refused:
        parse_code(text)
    return str(refused.value)


def test_a_code_is_simple_to_type_and_hard_to_guess() -> None:
    codes = {new_code() for _ in range(50)}
    assert len(codes) == 50
    for code in codes:
        assert re.fullmatch(r"(?:[0-9A-HJKMNP-TV-Z]{5}-){6}[0-9A-HJKMNP-TV-Z]{5}", code)
    assert len(ALPHABET) == 32 and GROUPS * (GROUP - 1) * 5 >= 128
    assert {char for code in codes for char in typed(code)} == set(ALPHABET)


@given(CODES)
def test_it_is_its_own_passphrase(code: str) -> None:
    assert parse_code(code) == code


@given(CODES)
def test_it_may_be_typed_as_people_do(code: str) -> None:
    sloppy = code.replace("0", "O").replace("1", "l")
    for text in (
        *(code.lower(), code.replace("-", " "), code.replace("-", ""), f"  {code}\n"),
        *(code.replace("-", "\u2013"), sloppy, sloppy.lower(), code.replace("1", "i")),
        *("\t".join(code), code.replace("-", " - ")),
    ):
        assert parse_code(text) == code


@given(CODES, PLACES, st.sampled_from(ALPHABET))
def test_one_wrong_character_is_found_and_its_group_is_named(
    code: str, place: int, wrong: str
) -> None:
    characters = typed(code)
    if characters[place] == wrong:
        return
    characters[place] = wrong
    assert f"group {place // GROUP + 1} of {GROUPS}" in refusal("".join(characters))


@given(CODES, st.integers(0, GROUPS - 1), st.integers(0, GROUP - 1), st.integers(0, GROUP - 1))
def test_two_that_changed_places_are_found(code: str, group: int, one: int, other: int) -> None:
    characters = typed(code)
    one, other = group * GROUP + one, group * GROUP + other
    if characters[one] == characters[other]:
        return
    characters[one], characters[other] = characters[other], characters[one]
    assert f"group {group + 1} " in refusal("".join(characters))


@given(CODES, st.permutations(range(GROUPS)))
def test_groups_that_changed_places_are_found(code: str, order: list[int]) -> None:
    groups = code.split("-")
    shuffled = [groups[index] for index in order]
    if shuffled == groups:
        assert parse_code("-".join(shuffled)) == code
    elif order != sorted(order):
        refusal("-".join(shuffled))


@given(CODES, PLACES)
def test_one_left_out_or_typed_twice_is_found(code: str, place: int) -> None:
    characters = typed(code)
    without = [*characters[:place], *characters[place + 1 :]]
    twice = [*characters[:place], characters[place], *characters[place:]]
    for text in ("".join(without), "".join(twice)):
        assert "group" in refusal(text) or f"{LENGTH} characters" in refusal(text)


@pytest.mark.parametrize("text", ["", " ", "-", "x", "U" * LENGTH, "\u00e9" * LENGTH, "0" * 1000])
def test_what_is_no_code_is_refused(text: str) -> None:
    refusal(text)


@given(st.text(max_size=80))
def test_nothing_breaks_it_and_nothing_typed_is_repeated(text: str) -> None:
    try:
        assert parse_code(text) == parse_code(parse_code(text))
    except ValueError as error:
        assert re.fullmatch(
            r"there is a typing error in group \d of 7|a recovery code has 35 characters, not \d+",
            str(error),
        )
