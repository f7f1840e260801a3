"""Who is given a recovery code, and who is not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sandbox.cli import making, output
from sandbox.cli.app import cli
from sandbox.lifecycle.house import House
from sandbox.model.errors import Exit
from sandbox.model.recovery import parse_code
from tests.unit.fakes import NAME, PASSWORD, World, make_house, opens

ONBOARD = (
    *("onboard", NAME, "--address", "anna@kunde.test", "--imap", "imap.kunde.test"),
    *("--smtp", "smtp.kunde.test", "--password-stdin", "--offline"),
)


@pytest.fixture
def terminal(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A terminal that is a file, absent as long as nobody sits there."""

    def compose(progress: Any) -> House:
        return replace(make_house(world), progress=progress)

    path = world.root / "tty"
    monkeypatch.setattr(making, "compose", compose)
    monkeypatch.setattr(output, "TERMINAL", str(path))
    return path


def onboard(*more: str) -> Result:
    done = CliRunner().invoke(cli, [*ONBOARD, *more], input=PASSWORD, prog_name="mailbox")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def nothing_was_made(world: World) -> bool:
    return world.state["vault"] == {} and not (world.root / "data").exists()


def is_its_code(house: House, text: str) -> bool:
    volume = house.paths.volume(NAME)
    assert house.keyslots.active(volume) == (0, 1)
    return text == f"{parse_code(text)}\n" and opens(volume, text.strip().encode())


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_on_a_terminal_it_is_shown_there_and_nowhere_else(
    house: House, terminal: Path, more: tuple[str, ...]
) -> None:
    terminal.touch()
    done = onboard(*more)
    assert done.exit_code == Exit.OK, done.output
    code = next(line for line in terminal.read_text().splitlines() if line.count("-") == 6).strip()
    assert is_its_code(house, f"{code}\n")
    assert code not in done.output and code.replace("-", "") not in done.output
    if more:
        assert json.loads(done.stdout)["facts"]["recovery_code"] is True
    kept = [path for path in house.paths.data.parent.rglob("*") if path.is_file()]
    assert [path for path in kept if code.encode() in path.read_bytes()] == [terminal]


def test_where_nobody_sees_it_nothing_is_done(world: World, terminal: Path) -> None:
    done = onboard("--json")
    assert done.exit_code == Exit.USAGE
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "recovery-code-unseen" and "--recovery-code-to" in error["resolution"]
    assert nothing_was_made(world)


def test_unless_none_is_wanted(house: House, terminal: Path) -> None:
    done = onboard("--no-recovery-code", "--json")
    assert json.loads(done.stdout)["facts"]["recovery_code"] is False
    assert house.keyslots.active(house.paths.volume(NAME)) == (0,)


def test_into_a_new_file(house: House, terminal: Path, tmp_path: Path) -> None:
    paper = tmp_path / "paper"
    done = onboard("--recovery-code-to", str(paper))
    assert done.exit_code == Exit.OK, done.output
    assert is_its_code(house, paper.read_text())
    assert paper.stat().st_mode & 0o777 == 0o600
    assert paper.read_text().strip() not in done.output


def test_no_file_is_overwritten_and_nothing_asked(
    world: World, terminal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.cli.making.gather_wish", lambda *_, **__: pytest.fail("asked"))
    (tmp_path / "paper").write_text("precious")
    for name in ("paper", "nowhere/paper"):
        done = onboard("--recovery-code-to", str(tmp_path / name))
        assert done.exit_code == Exit.USAGE and "--recovery-code-to" in done.output
    assert nothing_was_made(world) and (tmp_path / "paper").read_text() == "precious"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_into_a_descriptor(house: House, terminal: Path, pipe: tuple[int, int]) -> None:
    assert onboard("--recovery-code-to", str(pipe[1])).exit_code == Exit.OK
    assert is_its_code(house, os.read(pipe[0], 1000).decode())


@pytest.mark.parametrize(("descriptor", "more"), [("199", ()), ("1", ("--json",))])
def test_a_descriptor_that_cannot_take_it_is_refused_before(
    world: World, terminal: Path, descriptor: str, more: tuple[str, ...]
) -> None:
    done = onboard("--recovery-code-to", descriptor, *more)
    assert done.exit_code == Exit.USAGE and "--recovery-code-to" in done.output
    assert nothing_was_made(world)


def test_a_code_that_cannot_be_handed_over_undoes_the_onboarding(
    world: World, terminal: Path
) -> None:
    done = onboard("--recovery-code-to", "/dev/full/x")
    assert done.exit_code == Exit.USAGE
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = onboard("--recovery-code-to", str(full), "--json")
    finally:
        os.close(full)
    assert done.exit_code == Exit.NO_SPACE, done.output
    assert world.state["vault"] == {}
    assert [path for path in (world.root / "data").rglob("*") if path.is_file()] == []
