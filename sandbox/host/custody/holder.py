"""Serves the guest's GnuPG on a socket: the filter, the user's rules, then gpg-agent.

Fails closed: whatever goes wrong is an error for the guest, within a deadline, never a wait
without an end; a mail client waits for GnuPG in its main thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Protocol

from sandbox.channel import assuan
from sandbox.channel.assuan import Decrypt, Sign
from sandbox.host.custody.agent import AgentError
from sandbox.model.custody import Grants, Rate

MAX_CONNECTIONS = 16
CHUNK = 8192
IDLE_S = 600.0
ANSWER_S = 30.0
AGENT_S = 30.0
# A person types a PIN, or looks for a card.
PERSON_S = 120.0
# Many mails at once are fine, and a guest that decrypts day and night is slowed down.
BURST, PER_SECOND = 400, 20.0


class KeyAgent(Protocol):
    """One connection to gpg-agent."""

    async def perform(self, operation: Sign | Decrypt, description: str) -> tuple[bytes, bytes]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Holding:
    """What is held: whose key, its keygrips for each operation, and how to reach others."""

    label: str
    key: str
    version: str
    sign: tuple[str, ...]
    decrypt: tuple[str, ...]
    connect: Callable[[], Awaitable[KeyAgent]] = field(repr=False)
    ask: Callable[[str], Awaitable[bool | None]] = field(repr=False)
    """Ask the user about an operation; None when nobody can be asked."""
    note: Callable[[str, str, str], None] = field(repr=False)
    """Write down operation, keygrip (or what was refused) and outcome."""
    asks_person: bool = False
    """Whether the agent may ask a person: the user's own does, with its pinentry."""


class _Agents:
    """Connections to the agent, which rest between operations: making one takes its time."""

    def __init__(self, connect: Callable[[], Awaitable[KeyAgent]]) -> None:
        self._connect = connect
        self._resting: list[KeyAgent] = []

    async def perform(self, operation: Sign | Decrypt, words: str) -> tuple[bytes, bytes]:
        while self._resting:
            # One that rested may have lost its agent meanwhile; a new one may find the next agent.
            with suppress(OSError):
                try:
                    return await self._use(self._resting.pop(), operation, words)
                except AgentError as error:
                    if error.code != assuan.NO_AGENT:
                        raise
        return await self._use(await self._connect(), operation, words)

    async def _use(
        self, agent: KeyAgent, operation: Sign | Decrypt, words: str
    ) -> tuple[bytes, bytes]:
        try:
            result = await agent.perform(operation, words)
        except BaseException:
            agent.close()
            raise
        self._resting.append(agent)
        return result

    def close(self) -> None:
        while self._resting:
            self._resting.pop().close()


class Holder:
    """All connections of one guest."""

    def __init__(self, holding: Holding, grants: Grants) -> None:
        self.grants = grants
        self._holding = holding
        self._rate = Rate(BURST, PER_SECOND)
        self._agents = _Agents(holding.connect)
        self._asking: dict[str, asyncio.Task[bool | None]] = {}
        self._open = 0
        # A person is asked one thing at a time: the answer to the first may serve for the next.
        self.turn: AbstractAsyncContextManager[None] = (
            asyncio.Lock() if holding.asks_person else nullcontext()
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        if self._open >= MAX_CONNECTIONS:
            self._holding.note("refused", "too many connections", "refused")
            writer.close()
            return
        self._open += 1
        try:
            with suppress(OSError, TimeoutError):
                await _Connection(self, self._holding, reader, writer).run()
        finally:
            self._open -= 1
            writer.close()

    async def perform(self, operation: Sign | Decrypt, name: str) -> tuple[bytes, bytes]:
        """Have the agent do it; AgentError, OSError or TimeoutError when it does not."""
        words = f"{self._holding.label}: {name} with the key {self._holding.key}"
        async with asyncio.timeout(PERSON_S if self._holding.asks_person else AGENT_S):
            return await self._agents.perform(operation, words)

    def close(self) -> None:
        """Hang up on the agent."""
        self._agents.close()

    async def permitted(self, name: str) -> int:
        """0 when the operation may go on, else the number of the error for the guest."""
        if not self._rate.take(time.monotonic()):
            return assuan.FORBIDDEN
        verdict = self.grants.decide(name, time.monotonic())
        if verdict is None:
            verdict = await self._asked(name)
        if verdict is None:
            return assuan.TIMEOUT
        return 0 if verdict else assuan.NOT_CONFIRMED

    async def _asked(self, name: str) -> bool | None:
        """The user's answer; several connections that wait for the same one ask once."""
        if name not in self._asking:
            self._asking[name] = asyncio.create_task(self._ask(name))
            self._asking[name].add_done_callback(lambda _task: self._asking.pop(name, None))
        task = self._asking[name]
        end = time.monotonic() + ANSWER_S
        while time.monotonic() < end:
            # A yes may also come from `mailbox keys allow` meanwhile.
            if (verdict := self.grants.decide(name, time.monotonic())) is not None:
                return verdict
            if (await asyncio.wait({task}, timeout=0.2))[0]:
                return task.result()
        return None

    async def _ask(self, name: str) -> bool | None:
        answer = await self._holding.ask(name)
        if answer is not None:
            self.grants.answer(name, yes=answer, now=time.monotonic())
        return answer


class _Connection:
    def __init__(
        self,
        holder: Holder,
        holding: Holding,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._holder = holder
        self._holding = holding
        self._reader = reader
        self._writer = writer
        self._session = assuan.Session(holding.sign, holding.decrypt, holding.version)
        self._refusals = 0

    async def run(self) -> None:
        self._writer.write(self._session.greeting())
        while not self._session.over:
            await self._writer.drain()
            async with asyncio.timeout(IDLE_S):
                untrusted_data = await self._reader.read(CHUNK)
            if not untrusted_data:
                return
            await self._act(self._session.feed(untrusted_data))

    async def _act(self, events: list[assuan.Event]) -> None:
        for event in events:
            if isinstance(event, assuan.Reply):
                self._writer.write(event.data)
            elif isinstance(event, assuan.Refused):
                self._refuse(event.what)
            elif isinstance(event, assuan.HangUp):
                if event.reason:
                    self._refuse(event.reason)
            else:
                await self._act(await self._perform(event))

    def _refuse(self, what: str) -> None:
        self._refusals += 1
        # A guest that asks for ever writes nothing for ever.
        if self._refusals <= 20:
            self._holding.note("refused", what, "refused")

    async def _perform(self, operation: Sign | Decrypt) -> list[assuan.Event]:
        async with self._holder.turn:
            return await self._perform_now(operation)

    async def _perform_now(self, operation: Sign | Decrypt) -> list[assuan.Event]:
        name = "sign" if isinstance(operation, Sign) else "decrypt"
        code = await self._holder.permitted(name)
        if not code:
            try:
                result, status = await self._holder.perform(operation, name)
            except AgentError as error:
                code = error.code
            except TimeoutError:
                code = assuan.TIMEOUT
            except (OSError, ValueError):
                code = assuan.NO_AGENT
            else:
                self._holding.note(name, operation.grip, "done")
                return self._session.succeed(result, status)
        if self._holding.asks_person and code in _DECLINED:
            # Nobody is asked again for the other parts of the same mail.
            self._holder.grants.decline(name, time.monotonic())
        self._holding.note(name, operation.grip, _OUTCOMES.get(code, "failed"))
        return self._session.fail(code)


_DECLINED = {assuan.CANCELED, assuan.TIMEOUT, assuan.NO_CARD, assuan.CARD_REMOVED}
_OUTCOMES = {
    assuan.NOT_CONFIRMED: "denied",
    assuan.TIMEOUT: "no answer",
    assuan.FORBIDDEN: "too many",
    assuan.NO_AGENT: "no agent",
    assuan.CANCELED: "locked",
    assuan.NO_CARD: "no card",
    assuan.CARD_REMOVED: "no card",
    assuan.NO_PINENTRY: "no pinentry",
    assuan.PINENTRY: "no pinentry",
}
