"""The question to Thunderbird that ends a measurement, the same for every machine.

It is asked as soon as Thunderbird can be asked at all, and waits inside Thunderbird: so the moment
of the answer is the moment at which it became true, whatever the asking costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo import inside, proof

Json = dict[str, Any]

DEADLINE_S = 900.0

JAVASCRIPT = Path(__file__).with_name("js")


def ask(session: inside.Marionette, question: str, newest: str = "") -> Json:
    """One question on an open session."""
    return session.run(_script(question), {"deadline_s": DEADLINE_S, "newest": newest})


def connect(port: int, *, ended: Callable[[], bool] = lambda: False) -> inside.Marionette:
    """A session as soon as Thunderbird takes one; `ended` says that it never will."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            return inside.Marionette(port, deadline_s=5)
        except (OSError, inside.MarionetteError) as error:
            if ended() or time.monotonic() > end:
                raise inside.MarionetteError(f"Thunderbird cannot be asked: {error}") from None
            time.sleep(0.5)


def program(questions: list[str], newest: str = "", *, deadline_s: float = DEADLINE_S) -> bytes:
    """A program for `python3 -` beside Thunderbird: a line of JSON for each answer, as it comes."""
    source = Path(inside.__file__).read_text(encoding="utf-8")
    body = source.partition('\nif __name__ == "__main__":')[0]
    wanted = [(name, _script(name)) for name in questions]
    task = {"deadline_s": deadline_s, "newest": newest}
    asking = (
        f"\nsession = Marionette(deadline_s={deadline_s})\n"
        f"for name, question in {wanted!r}:\n"
        f"    answer = session.run(question, {task!r})\n"
        '    print(json.dumps({"question": name, **answer}), flush=True)\n'
        "session.close()\n"
    )
    return (body + asking).encode()


def _script(question: str) -> str:
    helpers = (proof.JAVASCRIPT / "helpers.js").read_text(encoding="utf-8")
    return helpers + (JAVASCRIPT / f"{question}.js").read_text(encoding="utf-8")
