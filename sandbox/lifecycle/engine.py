"""Runs every plan: a journal entry before and after each step, undone or resumable when stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandbox.model.errors import Exit, MailboxError
from sandbox.state.journal import Journal

Effect = Callable[[], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Step:
    """One effect that a plan wants: what the user reads while it runs, and why it is needed."""

    id: str
    title: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a verb will do to a profile, in order."""

    verb: str
    name: str
    steps: tuple[Step, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """Shows what is going on."""

    def step(self, title: str) -> None: ...
    def detail(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass(frozen=True)
class Timing:
    """How long a step took, in seconds."""

    step: str
    seconds: float


def seconds_of(timings: Iterable[Timing]) -> dict[str, float]:
    """Seconds by step, for reports."""
    return {timing.step: round(timing.seconds, 3) for timing in timings}


class StoppedError(MailboxError):
    """The user stopped the command (Ctrl-C)."""

    def __init__(self, undone: bool) -> None:
        super().__init__(
            "Stopped; " + ("what was begun is undone." if undone else "nothing is lost."),
            resolution="" if undone else "The next command on this mailbox goes on from here.",
            code="interrupted",
            exit_code=Exit.INTERRUPTED,
        )


def run(
    plan: Plan,
    effects: Mapping[str, Effect],
    journal: Journal,
    progress: Progress,
    *,
    undo: Callable[[], None] | None = None,
) -> tuple[Timing, ...]:
    """Run the plan's steps in order; with `undo`, whatever stops it is undone as a whole.

    Without `undo` a stopped plan stays pending in the journal, and the next command resumes it.
    """
    run_id = os.urandom(4).hex()
    journal.append(plan.verb, "begin", run_id, facts=plan.facts)
    timings: list[Timing] = []
    try:
        for step in plan.steps:
            progress.step(step.title)
            begun = time.monotonic()
            journal.append(plan.verb, "step", run_id, step.id)
            facts = effects[step.id]()
            journal.append(plan.verb, "done", run_id, step.id, facts)
            timings.append(Timing(step.id, time.monotonic() - begun))
    except BaseException as error:
        _stopped(plan, error, journal, run_id, undo)
        raise _as_stop(error, undo is not None) from None
    journal.append(plan.verb, "end", run_id, facts={"outcome": "done"})
    return tuple(timings)


def _stopped(
    plan: Plan,
    error: BaseException,
    journal: Journal,
    run_id: str,
    undo: Callable[[], None] | None,
) -> None:
    code = error.code if isinstance(error, MailboxError) else type(error).__name__
    # A full disk must not keep the undo from making room.
    with contextlib.suppress(MailboxError):
        journal.append(plan.verb, "failed", run_id, facts={"code": code})
    if undo is not None:
        undo()
        journal.append(plan.verb, "end", run_id, facts={"outcome": "undone"})


def _as_stop(error: BaseException, undone: bool) -> BaseException:
    return StoppedError(undone) if isinstance(error, KeyboardInterrupt) else error
