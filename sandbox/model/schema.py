"""Reading strict tables: every unknown, missing or malformed entry is reported with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_MISSING: Any = object()


class Reader:
    """One table of a TOML document; problems of all nested readers gather in one list."""

    def __init__(self, table: object, place: str = "", problems: list[str] | None = None) -> None:
        self.problems: list[str] = [] if problems is None else problems
        self._place = place
        self._seen: set[str] = set()
        if isinstance(table, Mapping):
            self._table: Mapping[str, Any] = table
        else:
            self._table = {}
            self.problems.append(f"{place or 'document'}: is not a table")

    def where(self, key: str) -> str:
        """The dotted place of a key, as error messages name it."""
        return f"{self._place}.{key}" if self._place else key

    def problem(self, key: str, text: str) -> None:
        """Record that the entry `key` is wrong."""
        self.problems.append(f"{self.where(key)}: {text}")

    def has(self, key: str) -> bool:
        """Whether the entry is there at all."""
        return key in self._table

    def table(self, key: str) -> Reader:
        """The nested table `key`; an absent one reads as empty."""
        self._seen.add(key)
        return Reader(self._table.get(key, {}), self.where(key), self.problems)

    def tables(self, key: str) -> list[Reader]:
        """The array of tables `key`; an absent one reads as empty."""
        self._seen.add(key)
        entries = self._table.get(key, [])
        if not isinstance(entries, list):
            self.problem(key, "is not a list of tables")
            return []
        return [
            Reader(entry, f"{self.where(key)}[{index}]", self.problems)
            for index, entry in enumerate(entries)
        ]

    def get(self, key: str, kind: type[T], default: T = _MISSING) -> T:
        """The entry `key`, which must be of `kind`; without a default it must be there."""
        self._seen.add(key)
        value = self._table.get(key, _MISSING)
        if value is _MISSING:
            if default is _MISSING:
                self.problem(key, "is missing")
                return kind()
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.problem(key, f"{value!r} is not a {_KINDS.get(kind, kind.__name__)}")
            return kind() if default is _MISSING else default
        return value

    def parsed(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """The text `key` through `parse`, whose ValueError becomes a problem at this place."""
        if not self.has(key):
            return default
        try:
            return parse(self.get(key, str, ""))
        except ValueError as error:
            self.problem(key, str(error))
            return default

    def checked(self, key: str, check: Callable[[str], str | None], default: Any = _MISSING) -> str:
        """The text `key`, with the problem that `check` finds in it."""
        text: str = self.get(key, str, default)
        problem = check(text) if self.has(key) else None
        if problem:
            self.problem(key, problem)
        return text

    def finish(self) -> None:
        """Report every entry that nobody asked for."""
        for key in self._table:
            if key not in self._seen:
                self.problem(key, "is not known here")


_KINDS: dict[type, str] = {str: "text", int: "whole number", bool: "true or false", list: "list"}
