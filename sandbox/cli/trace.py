"""Where the time of an open went, as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sandbox.lifecycle.house import Result
from sandbox.state import files


def write_trace(file: Path, result: Result) -> None:
    """Write the trace of an open; an earlier file of that name is replaced."""
    files.replace(file.absolute(), json.dumps(trace_of(result), indent=2).encode() + b"\n")


def trace_of(result: Result) -> dict[str, Any]:
    """Steps in order, each with its beginning and length in seconds, and the phases in the machine.

    A phase is counted from the beginning of the step in which the machine told it.
    """
    steps, at = [], 0.0
    for step, seconds in result.facts.get("seconds", {}).items():
        steps.append({"step": step, "begin": round(at, 3), "seconds": seconds})
        at += seconds
    return {
        "name": result.name,
        "already": bool(result.facts.get("already")),
        "resumed": bool(result.facts.get("resumed")),
        "warm": bool(result.facts.get("warm")),
        "cold_reason": result.facts.get("cold_reason") or None,
        "seconds": round(at, 3),
        "steps": steps,
        "phases": dict(result.facts.get("phases", {})),
    }
