"""The one exception a user meets, and the exit codes it maps to (docs/commands.md)."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the `mailbox` command; documented in docs/commands.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    EXISTS = 4
    BUSY = 5
    HOST = 6
    KEYRING = 7
    DAMAGED = 8
    SERVER = 9
    KEYS = 10
    MACHINE = 11
    NO_SPACE = 12
    INTERRUPTED = 130


class MailboxError(Exception):
    """What happened (brief), what it means (details), what to do next (resolution).

    `code` is a stable identifier that `--json` output carries; `exit_code` is one of `Exit`.
    No field may ever carry a secret.
    """

    def __init__(
        self,
        brief: str,
        *,
        details: str = "",
        resolution: str = "",
        code: str = "failed",
        exit_code: int = Exit.FAILED,
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution
        self.code = code
        self.exit_code = int(exit_code)


class InvalidInputError(MailboxError):
    """Everything wrong with one input, reported at once; `meaning` says what it means."""

    def __init__(
        self, what: str, problems: list[str], *, meaning: str = "", resolution: str = ""
    ) -> None:
        listed = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"{what} is not valid; {meaning}." if meaning else f"{what} is not valid.",
            details=listed,
            resolution=resolution,
            code="invalid-input",
            exit_code=Exit.USAGE,
        )
        self.problems = problems
