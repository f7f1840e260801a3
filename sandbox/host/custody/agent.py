"""Asks a profile's gpg-agent for one operation, on its restricted socket.

Every line is made here from checked values (sandbox.channel.assuan); what the agent says goes
back as a result or as the number of an error.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from sandbox.channel import assuan
from sandbox.channel.assuan import Decrypt, Sign

_PASSED_ON = {
    assuan.NO_SECKEY,
    assuan.TIMEOUT,
    assuan.NO_PINENTRY,
    assuan.PINENTRY,
    assuan.CANCELED,
    assuan.CARD_REMOVED,
    assuan.NO_CARD,
    assuan.NOT_CONFIRMED,
    assuan.FORBIDDEN,
}


class AgentError(Exception):
    """The agent refused, or is not there; `code` is gpg-error's number."""

    def __init__(self, code: int) -> None:
        super().__init__(f"gpg-agent: error {code}")
        self.code = code


class Agent:
    """One connection to gpg-agent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Agent:
        """Connect; OSError when no agent is there."""
        agent = cls(*await asyncio.open_unix_connection(str(path), limit=8192))
        await agent._answer()
        return agent

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def version(self) -> str:
        """The agent's version, such as `2.2.40`."""
        self._writer.write(b"GETINFO version\n")
        data, _status = await self._answer()
        return data.decode("ascii", "replace")

    async def perform(self, operation: Sign | Decrypt, description: str) -> tuple[bytes, bytes]:
        """The operation's result and its status line; after an AgentError, hang up."""
        # In one piece: a wait for each answer would take longer than the operation itself.
        lines = _lines(operation, description)
        self._writer.write("".join(f"{line}\n" for line in lines).encode("ascii"))
        for _ in lines[:-1]:
            await self._answer()
        return await self._answer(operation.ciphertext if isinstance(operation, Decrypt) else b"")

    async def _answer(self, inquired: bytes = b"") -> tuple[bytes, bytes]:
        data, status = bytearray(), b""
        while True:
            line = await self._line()
            word, _, rest = line.partition(b" ")
            if word == b"D":
                data += assuan.unescape(rest)
            elif word == b"S" and rest.startswith(b"PADDING "):
                status = b"PADDING " + str(int(rest.split()[1])).encode()
            elif word == b"INQUIRE":
                send = assuan.data_lines(inquired) + b"END\n" if rest == b"CIPHERTEXT" else b"CAN\n"
                self._writer.write(send)
            elif word == b"OK":
                return bytes(data), status
            elif word == b"ERR":
                code = int(rest.split()[0]) & 0xFFFF
                raise AgentError(code if code in _PASSED_ON else assuan.NO_SECKEY)

    async def _line(self) -> bytes:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise AgentError(assuan.NO_AGENT)
        return line[:-1]


def _lines(operation: Sign | Decrypt, description: str) -> list[str]:
    told = f"SETKEYDESC {_plus_escaped(description)}"
    if isinstance(operation, Decrypt):
        return ["RESET", f"SETKEY {operation.grip}", told, "PKDECRYPT"]
    digest = f"SETHASH {operation.algorithm} {operation.digest.hex().upper()}"
    return ["RESET", f"SIGKEY {operation.grip}", told, digest, "PKSIGN"]


def _plus_escaped(text: str) -> str:
    """As SETKEYDESC wants it: percent escapes, spaces as plus (gpg-agent, HELP SETKEYDESC)."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else "+" if byte == 32 else f"%{byte:02X}"
        for byte in text.encode()
    )
