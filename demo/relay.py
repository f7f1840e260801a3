"""The next hop of the mail server: takes mail by SMTP and hands it back to LMTP."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import threading
from collections.abc import Callable

Deliver = Callable[[bytes, str], None]


class Relay:
    """A small SMTP server on a loopback port, in a thread of its own."""

    def __init__(self, port: int, deliver: Deliver) -> None:
        self._port = port
        self._deliver = deliver
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._started = threading.Event()

    def start(self) -> None:
        """Listen; returns when mail is accepted."""
        self._thread.start()
        if not self._started.wait(10):
            raise TimeoutError("the relay did not start")

    def stop(self) -> None:
        """Stop listening and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self._port)
        )
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._converse(reader, writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recipients: list[str] = []
        _say(writer, "220 relay ready")
        while line := (await reader.readline()).decode("latin-1").rstrip("\r\n"):
            verb = line.split(":")[0].strip().upper()
            if verb.startswith(("EHLO", "HELO")):
                _say(writer, "250-relay", "250-8BITMIME", "250 SIZE 100000000")
            elif verb == "RCPT TO":
                recipients.append(line.partition("<")[2].partition(">")[0])
                _say(writer, "250 ok")
            elif verb == "DATA":
                _say(writer, "354 go on")
                _say(writer, await self._forward(await _read_message(reader), recipients))
                recipients = []
            elif verb == "QUIT":
                _say(writer, "221 bye")
                return
            elif verb.startswith(("MAIL FROM", "RSET", "NOOP")):
                _say(writer, "250 ok")
            else:
                _say(writer, "502 unknown")

    async def _forward(self, message: bytes, recipients: list[str]) -> str:
        try:
            for recipient in recipients:
                await asyncio.to_thread(self._deliver, message, recipient)
        except (smtplib.SMTPException, OSError) as error:
            return f"550 not delivered: {type(error).__name__}"
        return "250 delivered"


def _say(writer: asyncio.StreamWriter, *lines: str) -> None:
    writer.write("".join(f"{line}\r\n" for line in lines).encode("ascii", "replace"))


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    lines: list[bytes] = []
    while (line := await reader.readline()) not in (b".\r\n", b""):
        lines.append(line[1:] if line.startswith(b"..") else line)
    return b"".join(lines)
