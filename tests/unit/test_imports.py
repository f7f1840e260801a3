"""The rooms and the doors between them: who may import whom, print, and start programs."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cli.app import COMMANDS, cli

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sandbox"
MODULES = sorted(PACKAGE.rglob("*.py"))
# What each room may import of this package; `ports` knows no adapter, only the model.
DOORS = {
    "model": {"model"},
    "ports": {"model"},
    "state": {"state", "model"},
    "report": {"report", "model"},
    "lifecycle": {"lifecycle", "state", "model", "ports", "report", "__version__", ""},
    "channel": {"channel", "model"},
    "host": {"host", "channel", "state", "model", "ports"},
    "cli": {"cli", "lifecycle", "state", "model", "ports", "host", "report", ""},
    "": set[str](),
}
# Which libraries only some rooms may know.
ONLY = {
    "libvirt": ("host/libvirt/",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "jeepney": ("host/logind.py",),
    "keyring": ("host/vault.py",),
    "gnupg": ("host/gnupg.py",),
    "asyncssh": ("channel/",),
    "subprocess": ("host/process.py",),
    "multiprocessing": (),
    "pty": (),
    "PIL": ("host/picture.py",),
    "fpdf": ("report/pdf.py",),
    "dns": ("host/",),
    "tomllib": ("state/records.py", "host/recipes.py"),
}
MAY_PRINT = "cli/output.py"
# `run` hands the streams on as they are and prints nothing.
MAY_PASS_STREAMS = ("cli/commands.py", "channel/warden.py", "host/custody/pinentry.py")


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(module: str) -> str:
    """The room of `sandbox.room.rest`; empty for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path)} imports relatively"
            base = node.module or ""
            yield base
            if base == "sandbox":
                yield from (f"sandbox.{alias.name}" for alias in node.names)


def names_of(path: Path) -> Iterator[tuple[str, int]]:
    """Dotted names as they are used, such as `sys.stdout`, and their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield f"{node.func.id}()", node.lineno


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 40
    assert {room(f"sandbox.{place(path).split('/')[0].removesuffix('.py')}") for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_only_open_doors_are_used(path: Path) -> None:
    here = place(path).split("/")[0].removesuffix(".py")
    mine = "" if here == "__init__" else here
    ours = [each for each in imports(path) if each.split(".")[0] == "sandbox" and each != "sandbox"]
    behind = {room(each) for each in ours if room(each) != "__version__"}
    assert behind <= DOORS[mine], f"{place(path)} knows {behind - DOORS[mine]}"


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_some_libraries_stay_in_their_room(path: Path) -> None:
    for each in {name.split(".")[0] for name in imports(path)} & set(ONLY):
        assert place(path).startswith(ONLY[each] or ("nowhere",)), f"{each} in {place(path)}"


def test_the_libraries_are_where_they_are_said_to_be() -> None:
    used = {each.split(".")[0] for path in MODULES for each in imports(path)}
    assert {"libvirt", "click", "keyring", "gnupg", "asyncssh", "subprocess"} <= used


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_programs_start_in_one_place(path: Path) -> None:
    starters = {
        f"os.{name}" for name in dir(os) if name.startswith(("exec", "spawn", "posix_spawn"))
    }
    starters |= {"os.system", "os.popen", "os.fork", "os.forkpty"}
    if place(path) != "host/process.py":
        starters |= {"asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"}
        assert not {name for name, _ in names_of(path)} & starters


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_printing_happens_in_one_module(path: Path) -> None:
    streams = {"print()", "sys.stdout", "sys.stderr", "click.echo", "click.secho"}
    used = {name for name, _ in names_of(path)} & streams
    if place(path) in MAY_PASS_STREAMS:
        used -= {"sys.stdout", "sys.stderr"}
    assert place(path) == MAY_PRINT or not used, f"{place(path)} uses {used}"


@pytest.mark.parametrize("path", MODULES, ids=place)
def test_no_program_goes_through_a_shell(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            pytest.fail(f"{place(path)}:{node.value.lineno} names shell=")


def loaded_by(home: Path, *arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends."""
    program = (
        "import atexit, sys\n"
        "from sandbox.cli.app import main\n"
        "atexit.register(lambda: sys.stderr.write('LOADED ' + ' '.join(sys.modules)))\n"
        f"sys.argv = ['mailbox', *{list(arguments)!r}]\n"
        "main()\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "MAILBOX_HOME": str(home / "m")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.partition("LOADED ")[2].split())


SLOW = {"libvirt", "asyncssh", "keyring", "gnupg", "PIL", "dns", "cryptography", "rich", "fpdf"}


@pytest.mark.parametrize("arguments", [["--help"], ["onboard", "--help"], ["--version"]])
def test_help_waits_for_no_library(arguments: list[str], tmp_path: Path) -> None:
    loaded = {name.split(".")[0] for name in loaded_by(tmp_path, *arguments)}
    assert "click" in loaded and not loaded & SLOW


def test_list_waits_for_libvirt_alone(tmp_path: Path) -> None:
    loaded = {name.split(".")[0] for name in loaded_by(tmp_path, "list")}
    assert not loaded & (SLOW - {"libvirt"})


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_a_command_waits_for_no_other(arguments: list[str], tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, *arguments)
    assert not loaded & {f"sandbox.cli.{name}" for name in ("ending", "making", "image_commands")}
    assert not loaded & {"http.client", "ssl", "sandbox.ports", "sandbox.lifecycle.open"}


def test_the_help_says_what_the_commands_say() -> None:
    for module, _sentence in COMMANDS.values():
        importlib.import_module(f"sandbox.cli.{module}")
    assert set(cli.commands) == set(COMMANDS)
    for name, (_module, sentence) in COMMANDS.items():
        assert cli.commands[name].get_short_help_str(limit=200) == sentence


def test_a_group_has_all_its_commands_whichever_is_called(tmp_path: Path) -> None:
    assert "sandbox.cli.correspondents" in loaded_by(tmp_path, "keys", "--help")
