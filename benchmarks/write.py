"""Write what was measured into a page: `python -m benchmarks.write PAGE results.json`.

The page has two markers; what stands between them is replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.goals import BY_KEY, GOALS, Finding, Measured, Table, read

BEGIN = "<!-- Measured: from here on written by benchmarks/write.py -->"
END = "<!-- Measured: up to here -->"


def findings(document: Mapping[str, Any]) -> list[Finding]:
    """All that `python -m benchmarks` collected, or what one benchmark wrote."""
    several = document.get("benchmarks")
    return [read(each) for each in several] if several else [read(document)]


def section(found: Sequence[Finding]) -> str:
    """Everything between the markers."""
    figures = {each.key: each for one in found for each in one.figures}
    measured = [figures[goal.key] for goal in GOALS if goal.key in figures]
    parts = [_computer(found), _goals(measured)]
    missed = [each for each in measured if not each.met]
    if missed:
        parts.append("\n".join(["What misses its goal, and where it goes:\n", *map(_miss, missed)]))
    parts += [_table(table) for one in found for table in one.tables]
    return "\n\n".join(parts)


def _computer(found: Sequence[Finding]) -> str:
    facts = {key: value for one in found for key, value in one.computer.items()}
    rows = tuple((name, value) for name, value in facts.items())
    return _table(Table("The computer", ("", ""), rows))


def _goals(measured: Sequence[Measured]) -> str:
    rows = []
    for each in measured:
        goal = BY_KEY[each.key]
        rows.append((goal.title, each.told(), goal.told(), "met" if each.met else "**missed**"))
    return _table(Table("Goals", ("Figure", "Measured", "Goal", ""), tuple(rows)))


def _miss(each: Measured) -> str:
    goal = BY_KEY[each.key]
    return f"- **{goal.title}**: {each.told()}. {each.why}".rstrip()


def _table(table: Table) -> str:
    rows = [table.heading, tuple("---" for _ in table.heading), *table.rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    note = [table.note, ""] if table.note else []
    return "\n".join([f"### {table.title}", "", *note, *lines])


def replace_section(page: str, text: str) -> str:
    """The page with `text` between its markers; ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for what was measured")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the section."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    page = Path(arguments[0])
    found = [one for name in arguments[1:] for one in findings(json.loads(Path(name).read_text()))]
    page.write_text(replace_section(page.read_text(), section(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
