"""Nothing on the host knows a mail client: what is particular to one lives in its own folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sandbox.host.images import data_root
from sandbox.host.recipes import clients

PACKAGE = Path(__file__).parents[2] / "sandbox"
# Thunderbird's public database of mail servers, which any client may be set up from.
DATABASE = "autoconfig.thunderbird.net"
NAMES = clients(data_root() / "images")


def texts(path: Path) -> list[str]:
    """The strings of a module that are not its documentation."""
    tree = ast.parse(path.read_text())
    documented = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documented
    ]


@pytest.mark.parametrize("client", NAMES)
def test_no_module_of_the_host_names_a_client(client: str) -> None:
    naming = [
        f"{path.relative_to(PACKAGE)}: {text[:60]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in texts(path)
        if re.search(client, text.replace(DATABASE, ""), re.IGNORECASE)
    ]
    assert naming == []


def test_what_every_guest_has_runs_no_client() -> None:
    base = data_root() / "images/base/root"
    programs = [path for path in base.rglob("*") if path.suffix == ".py"]
    assert programs
    naming = [path.name for path in programs for name in NAMES if name in "".join(texts(path))]
    assert naming == []
