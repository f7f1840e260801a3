"""Gathers everything that is wrong with what was said, each problem with its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Checker:
    """Gathers the problems of one input."""

    problems: list[str] = field(default_factory=list)

    def parse(self, place: str, text: str | None, parse: Callable[[str], T], default: T) -> T:
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self.problems.append(f"{place}: {error}")
            return default

    def check(self, place: str, text: str, problem_of: Callable[[str], str | None]) -> str:
        problem = problem_of(text)
        if problem:
            self.problems.append(f"{place}: {problem}")
        return text

    def read(self, place: str, path: str | None) -> bytes | None:
        if path is None:
            return None
        try:
            return Path(path).expanduser().read_bytes()
        except OSError as error:
            self.problems.append(f"{place}: {path}: {error.strerror}")
            return None

    def require(self, place: str, value: object) -> None:
        if not value:
            self.problems.append(f"{place}: is needed")
