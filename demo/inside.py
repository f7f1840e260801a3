"""Ask a running Thunderbird what it shows, from beside it: Marionette, standard library only.

This one file is piped into `python3 -` in a guest and imports nothing of the package.  The task
is an argument or the first line of standard input: {"do": NAME, "script": JavaScript, "deadline_s":
60, "port": 2828, ...}; one line of JSON comes back.  See `proof.py` for the tasks.
"""

import json
import socket
import sys
import time
from typing import Any

Json = dict[str, Any]

WRAPPED = """
const task = arguments[0];
const resolve = arguments[arguments.length - 1];
(async () => {
%s
})().then(value => resolve({ value }), error => resolve({ error: String(error) }));
"""


class MarionetteError(Exception):
    """Thunderbird did not answer, or said no."""


class ModalDialogError(MarionetteError):
    """A question to the person lies over Thunderbird's windows; its text."""


class Marionette:
    """One session with a Thunderbird that was started with -marionette."""

    def __init__(self, port: int = 2828, *, deadline_s: float = 60) -> None:
        self._socket = _connect(port, deadline_s)
        self._number = 0
        self._receive()  # its greeting
        # Questions to the person are reported, not answered.
        self.call("WebDriver:NewSession", {"unhandledPromptBehavior": "ignore"})
        self.call("Marionette:SetContext", {"value": "chrome"})

    def close(self) -> None:
        """End the session; Thunderbird goes on."""
        try:
            self.call("WebDriver:DeleteSession", {})
        finally:
            self._socket.close()

    def run(self, script: str, task: Json) -> Json:
        """Run the body of an asynchronous function in Thunderbird; returns what it returns."""
        timeout = int(task["deadline_s"] * 1000 + 10000)
        self.call("WebDriver:SetTimeouts", {"script": timeout})
        self._socket.settimeout(timeout / 1000 + 10)
        arguments = {"script": WRAPPED % script, "args": [task], "newSandbox": True}
        answer: Json = self.call("WebDriver:ExecuteAsyncScript", arguments)["value"]
        if "error" in answer:
            raise MarionetteError(answer["error"])
        value: Json = answer["value"]
        return value

    def call(self, name: str, parameters: Json) -> Any:
        """One command and its answer."""
        self._number += 1
        message = json.dumps([0, self._number, name, parameters]).encode()
        self._socket.sendall(str(len(message)).encode() + b":" + message)
        _, number, error, result = self._receive()
        if number != self._number:
            raise MarionetteError("answer to another command")
        if error and error.get("error") == "unexpected alert open":
            raise ModalDialogError(self.call("WebDriver:GetAlertText", {})["value"])
        if error:
            raise MarionetteError(f"{error.get('error')}: {error.get('message')}")
        return result

    def _receive(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            length += self._read(1)
        left, parts = int(length[:-1]), []
        while left:
            parts.append(self._read(min(left, 65536)))
            left -= len(parts[-1])
        return json.loads(b"".join(parts))

    def _read(self, size: int) -> bytes:
        data = self._socket.recv(size)
        if not data:
            raise MarionetteError("Thunderbird ended the connection")
        return data


def _connect(port: int, deadline_s: float) -> socket.socket:
    end = time.monotonic() + deadline_s
    while True:
        try:
            # A busy emulated machine may take long for its first answers.
            return socket.create_connection(("127.0.0.1", port), timeout=max(30, deadline_s))
        except OSError as error:
            if time.monotonic() > end:
                raise MarionetteError(f"no Marionette on port {port}: {error}") from error
            time.sleep(0.2)


def perform(task: Json) -> Json:
    """Do one task; returns its result, or {"error": ...}."""
    task = {"deadline_s": 60, "port": 2828, **task}
    try:
        session = Marionette(task["port"], deadline_s=task["deadline_s"])
        try:
            script = task.pop("script")
            return session.run(script, task)
        finally:
            session.close()
    except ModalDialogError as error:
        if task["do"] == "dialogs":
            return {"dialogs": [{"kind": "modal", "text": str(error)}]}
        return {"error": f"a question waits for an answer: {error}"}
    except (MarionetteError, OSError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(arguments: list[str]) -> int:
    """Read a task, print its result as one line of JSON."""
    text = arguments[0] if arguments else sys.stdin.readline()
    result = perform(json.loads(text))
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
