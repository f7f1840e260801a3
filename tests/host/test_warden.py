"""The warden as a process of its own, against a real `sshd -i` and against hostile guests.

Deadlines here only bound how long a broken build may hang; no outcome depends on speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from sandbox.channel.client import ProvisionResult, WardenClient
from sandbox.channel.protocol import Op, Request, encode_request
from sandbox.channel.untrusted import GuestEvent
from sandbox.host import daemons
from sandbox.model.errors import MailboxError
from tests.host.warden_guest import SSHD, Guest, make_host_key, read_hello, ready_line

PATIENCE_S = 60.0
LISTEN = "127.0.9.201"
SECRET = "correct horse battery"

needs_sshd = pytest.mark.skipif(
    os.geteuid() != 0 or not Path(SSHD).exists(),
    reason="a stand-in guest needs OpenSSH's server and root (scripts/in-namespace)",
)

Starter = Callable[..., subprocess.Popen[bytes]]


def eventually(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server((LISTEN, 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "m"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def guest(folder: Path) -> Iterator[Guest]:
    stand_in = Guest(folder)
    yield stand_in
    stand_in.power_off()


@pytest.fixture
def start(guest: Guest, folder: Path) -> Iterator[Starter]:
    """Start wardens; at the end none is left."""
    started: list[subprocess.Popen[bytes]] = []

    def starter(
        environment: Mapping[str, str] | None = None, **changes: Any
    ) -> subprocess.Popen[bytes]:
        config = {
            "profile_id": "4f1c",
            "name": "clientA",
            "channel_socket": str(guest.socket_path),
            "control_socket": str(folder / "warden.sock"),
            "hostname": "clientA",
            "log_file": str(folder / "warden.log"),
            "connect_deadline_s": PATIENCE_S,
            "forwards": [],
        }
        command = [sys.executable, "-m", "sandbox.channel.warden"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(json.dumps(config | changes).encode())
        process.stdin.close()
        return process

    yield starter
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def client(folder: Path) -> WardenClient:
    return WardenClient(folder / "warden.sock")


def run(
    client: WardenClient, *argv: str, stdin: bytes | None = None, user: str = "root"
) -> tuple[int, bytes, bytes]:
    stdout, stderr = io.BytesIO(), io.BytesIO()
    code = client.run(list(argv), user=user, stdin=stdin, stdout=stdout, stderr=stderr)
    return code, stdout.getvalue(), stderr.getvalue()


def refused_code(call: Callable[[], object]) -> str:
    with pytest.raises(MailboxError) as caught:
        call()
    return caught.value.code


def nothing_left(folder: Path) -> bool:
    return not list(folder.glob("warden.sock*"))


# Commands


@needs_sshd
def test_commands_carry_bytes_codes_and_words_unchanged(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    guest.start()
    start()
    client.wait_ready(PATIENCE_S)
    data = os.urandom(5_000_000)
    assert run(client, "cat", stdin=data) == (0, data, b"")
    assert run(client, "sh", "-c", "cat; echo no >&2; exit 7", stdin=b"x") == (7, b"x", b"no\n")
    words = ["two words", "'\"$HOME`id`", "", "-n", "new\nline", "*", "ä"]
    code, stdout, _ = run(client, "printf", "%s\\0", *words)
    assert (code, stdout) == (0, "".join(f"{word}\0" for word in words).encode())
    assert run(client, "sh", "-c", "kill -KILL $$")[0] == 128 + signal.SIGKILL
    assert run(client, "no-such-program")[0] == 127
    assert run(client, "sh", "-c", "exec <&-; exit 3", stdin=data)[0] == 3
    code, stdout, _ = run(client, "sh", "-c", "echo $STAND_IN_USER", user="mail-user")
    assert (code, stdout) == (0, b"mail-user\n")


@needs_sshd
def test_commands_run_side_by_side(guest: Guest, start: Starter, client: WardenClient) -> None:
    guest.start()
    start()
    client.wait_ready(PATIENCE_S)
    results: dict[int, tuple[int, bytes, bytes]] = {}

    def one(number: int) -> None:
        results[number] = run(client, "cat", stdin=bytes([number]) * 300_000)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == {number: (0, bytes([number]) * 300_000, b"") for number in range(8)}


@needs_sshd
@pytest.mark.parametrize("blocked", [False, True], ids=["idle", "with-input-nobody-reads"])
def test_a_client_that_hangs_up_ends_its_command(
    guest: Guest, start: Starter, client: WardenClient, folder: Path, blocked: bool
) -> None:
    guest.start()
    start()
    client.wait_ready(PATIENCE_S)
    pid_file = folder / "command.pid"
    command = f"echo $$ > {pid_file}.part; mv {pid_file}.part {pid_file}; sleep 1000 & wait"
    caller = subprocess.Popen(
        [
            *(sys.executable, "-c", _CALLER, str(folder / "warden.sock")),
            *("sh", "-c", f"trap '' TERM; {command}"),
        ],
        stdin=subprocess.DEVNULL if not blocked else subprocess.PIPE,
    )
    eventually(pid_file.exists, "the command begins")
    pid = int(pid_file.read_text())
    if blocked:
        assert caller.stdin is not None
        os.set_blocking(caller.stdin.fileno(), False)
        for _ in range(200):
            try:
                os.write(caller.stdin.fileno(), bytes(65536))
            except BlockingIOError:
                time.sleep(0.01)
        caller.stdin.close()
    caller.kill()
    caller.wait()
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the command ends")
    assert run(client, "true")[0] == 0


_CALLER = """
import pathlib, sys
from sandbox.channel.client import WardenClient
client = WardenClient(pathlib.Path(sys.argv[1]))
client.run(sys.argv[2:], user="root", stdin=sys.stdin.buffer,
           stdout=sys.stdout.buffer, stderr=sys.stderr.buffer)
"""


# Forwards


class EchoServer:
    """Greets, echoes, ends when the other side ends."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.create_server((host, port))
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            conn, _ = self._listener.accept()
            self.accepted += 1
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with conn:
            conn.sendall(b"* OK\r\n")
            while data := conn.recv(65536):
                conn.sendall(data)
            conn.sendall(b"BYE")


def forward(port: int, connect_port: int, listen: str = LISTEN) -> dict[str, Any]:
    return {
        "name": "imap.kunde.test",
        "listen": listen,
        "port": port,
        "connect_host": "127.0.0.1",
        "connect_port": connect_port,
    }


def send_all(conn: socket.socket, data: bytes) -> None:
    conn.sendall(data)
    conn.shutdown(socket.SHUT_WR)


def nothing_said(event: GuestEvent) -> None:
    raise AssertionError(event)


def read_all(conn: socket.socket) -> bytes:
    data = b""
    while part := conn.recv(65536):
        data += part
    return data


@needs_sshd
def test_a_forward_reaches_its_server_and_keeps_count(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    server, port = EchoServer(), free_port()
    guest.start()
    start(forwards=[forward(port, server.port)])
    client.wait_ready(PATIENCE_S)
    data = os.urandom(3_000_000)
    with socket.create_connection((LISTEN, port)) as conn:
        feeder = threading.Thread(target=send_all, args=(conn, data))
        feeder.start()
        assert read_all(conn) == b"* OK\r\n" + data + b"BYE"
        feeder.join()
    eventually(lambda: client.status().forwards[0].open == 0, "the connection is counted out")
    counters = client.status().forwards[0]
    assert (counters.connections, counters.refused) == (1, 0)
    assert (counters.sent, counters.received) == (len(data), len(data) + 9)


@needs_sshd
def test_a_server_that_is_not_there_is_a_closed_connection_and_a_reason(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        connect_port = int(gone.getsockname()[1])
    port = free_port()
    guest.start()
    start(forwards=[forward(port, connect_port)])
    client.wait_ready(PATIENCE_S)
    with socket.create_connection((LISTEN, port)) as conn:
        assert read_all(conn) == b""
    counters = client.status().forwards[0]
    assert (counters.open, counters.connections, counters.refused) == (0, 0, 1)
    assert "cannot connect" in counters.last_error


@needs_sshd
def test_connections_of_one_forward_are_bounded(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    server, port = EchoServer(), free_port()
    guest.start()
    start(forwards=[forward(port, server.port)])
    client.wait_ready(PATIENCE_S)
    conns = [socket.create_connection((LISTEN, port)) for _ in range(70)]
    greetings = [conn.recv(6) for conn in conns]
    assert greetings.count(b"* OK\r\n") == 64
    assert client.status().forwards[0].refused == 6
    for conn in conns:
        conn.close()
    eventually(lambda: client.status().forwards[0].open == 0, "all are counted out")
    with socket.create_connection((LISTEN, port)) as conn:
        assert conn.recv(6) == b"* OK\r\n"


# Provisioning

_PROVISION = f"""#!{sys.executable}
import json, sys
assert sys.argv[1:] == ["provision"]
state = json.load(sys.stdin)
def say(**fields): print(json.dumps(fields), flush=True)
say(event="phase", name="volume", uptime=1.5)
print("not an event")
say(event="warning", code="clock", message="\\x1b]0;owned\\x07late " + state["greeting"])
say(event="phase", name="ready", more="unknown keys")
if state.get("fail"):
    say(event="error", code="volume-damaged", message="no file system")
    sys.exit(4)
if state.get("crash"):
    sys.exit("\\x1b[2Jtraceback")
say(event="phase", name="ready")
"""


def provision(
    client: WardenClient, desired: Mapping[str, Any], deadline_s: float = PATIENCE_S
) -> tuple[ProvisionResult, list[GuestEvent]]:
    events: list[GuestEvent] = []
    return client.provision(desired, events.append, deadline_s), events


@needs_sshd
def test_provisioning_relays_checked_events_and_leaves_no_secret(
    guest: Guest, start: Starter, client: WardenClient, folder: Path
) -> None:
    guest.program("mailbox-guest", _PROVISION)
    guest.start()
    start()
    client.wait_ready(PATIENCE_S)
    keys = ["x" * 3000] * 1000
    result, events = provision(client, {"greeting": "hi", "password": SECRET, "keys": keys})
    assert result.ok
    assert result.ignored == 2
    assert events == [
        GuestEvent("phase", name="volume", uptime=1.5),
        GuestEvent("warning", code="clock", message="late hi"),
        GuestEvent("phase", name="ready"),
    ]
    assert result.warnings == (events[1],)

    result, _ = provision(client, {"greeting": SECRET, "fail": True})
    assert not result.ok
    assert result.exit_code == 4
    assert result.error == GuestEvent("error", code="volume-damaged", message="no file system")

    with pytest.raises(MailboxError) as caught:
        provision(client, {"greeting": SECRET, "crash": True})
    assert (caught.value.code, caught.value.details) == ("guest-error", "traceback")
    client.stop()
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in left if SECRET.encode() in path.read_bytes()]


@needs_sshd
@pytest.mark.parametrize(
    "program",
    [
        'while :; do echo \'{"event":"phase","name":"volume"}\'; done',
        "while :; do echo nonsense; done",
        "cat /dev/zero",
    ],
    ids=["events", "lines", "one-line"],
)
def test_a_flood_of_events_ends_the_command_not_the_warden(
    guest: Guest, start: Starter, client: WardenClient, program: str
) -> None:
    guest.program("mailbox-guest", f"#!/bin/sh\n{program}\n")
    guest.start()
    start()
    client.wait_ready(PATIENCE_S)
    assert refused_code(lambda: provision(client, {})) == "guest-error"
    assert run(client, "true")[0] == 0


@needs_sshd
def test_a_guest_that_never_finishes_is_silent(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    guest.program("mailbox-guest", "#!/bin/sh\nexec sleep 1000\n")
    guest.start()
    start()
    client.wait_ready(PATIENCE_S)
    assert refused_code(lambda: provision(client, {}, 0.2)) == "machine-silent"
    assert client.shutdown(0.2, nothing_said) is False
    assert run(client, "true")[0] == 0


@needs_sshd
def test_shutdown_is_done_when_the_channel_is_gone(
    guest: Guest, start: Starter, client: WardenClient, folder: Path
) -> None:
    warning = '{"event":"warning","code":"client-killed","message":"ended"}'
    program = f"#!/bin/sh\necho '{warning}'\necho noise\n: > {folder}/down\n"
    guest.program("mailbox-guest", program)
    guest.start()
    process = start()
    client.wait_ready(PATIENCE_S)
    said: list[GuestEvent] = []

    def power() -> None:
        eventually((folder / "down").exists, "the guest goes down")
        guest.power_off()

    threading.Thread(target=power, daemon=True).start()
    assert client.shutdown(PATIENCE_S, said.append) is True
    assert [(each.kind, each.code) for each in said] == [("warning", "client-killed")]
    assert process.wait(PATIENCE_S) == 0
    eventually(lambda: nothing_left(folder), "the warden cleans up")


# Life and death


@needs_sshd
def test_the_socket_is_private_and_only_one_warden_holds_a_machine(
    guest: Guest, start: Starter, client: WardenClient, folder: Path
) -> None:
    guest.start()
    first = start()
    client.wait_ready(PATIENCE_S)
    assert (folder / "warden.sock").stat().st_mode & 0o777 == 0o600
    assert (folder / "warden.log").stat().st_mode & 0o777 == 0o600
    assert daemons.peer(folder / "warden.sock") == first.pid
    assert os.getsid(first.pid) == first.pid
    second = start()
    assert second.wait(PATIENCE_S) == 75
    assert client.status().state == "ready"
    assert run(client, "true")[0] == 0


@needs_sshd
def test_the_users_own_ssh_set_up_takes_no_part(
    guest: Guest, start: Starter, client: WardenClient, tmp_path: Path
) -> None:
    settings = tmp_path / ".ssh"
    settings.mkdir()
    (settings / "config").write_text("Host *\n  ProxyCommand false\n  User nobody\n")
    (settings / "known_hosts").write_text("nonsense\n")
    (settings / "id_ed25519").write_text("nonsense\n")
    agent = socket.socket(socket.AF_UNIX)
    agent.bind(str(tmp_path / "agent"))
    agent.listen()
    agent.setblocking(False)
    guest.start()
    start({"HOME": str(tmp_path), "SSH_AUTH_SOCK": str(tmp_path / "agent")})
    client.wait_ready(PATIENCE_S)
    with pytest.raises(BlockingIOError):
        agent.accept()
    agent.close()


@needs_sshd
def test_stopping_ends_what_still_runs(
    guest: Guest, start: Starter, client: WardenClient, folder: Path
) -> None:
    guest.start()
    process = start()
    client.wait_ready(PATIENCE_S)
    begun = folder / "begun"
    codes: list[str] = []
    command = ("sh", "-c", f": > {begun}; exec sleep 1000")
    caller = threading.Thread(
        target=lambda: codes.append(refused_code(lambda: run(client, *command)))
    )
    caller.start()
    eventually(begun.exists, "the command begins")
    client.stop()
    caller.join(PATIENCE_S)
    assert codes == ["warden-gone"]
    assert process.wait(PATIENCE_S) == 0


@needs_sshd
def test_after_a_killed_warden_the_next_one_takes_over(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    guest.start()
    first = start()
    client.wait_ready(PATIENCE_S)
    first.kill()
    first.wait()
    assert refused_code(client.status) == "warden-gone"
    start()
    client.wait_ready(PATIENCE_S)
    assert run(client, "true")[0] == 0
    keys = [hello["client_key"] for hello in guest.hellos]
    assert len(set(keys)) == len(keys) >= 2


@needs_sshd
def test_a_cut_channel_is_made_anew_with_new_keys(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    server, port = EchoServer(), free_port()
    guest.start()
    start(forwards=[forward(port, server.port)])
    since = client.wait_ready(PATIENCE_S).since
    running: list[str] = []
    caller = threading.Thread(
        target=lambda: running.append(refused_code(lambda: run(client, "sleep", "1000")))
    )
    caller.start()
    with socket.create_connection((LISTEN, port)) as conn:
        assert conn.recv(6) == b"* OK\r\n"
        guest.cut()
        caller.join(PATIENCE_S)
        assert running == ["channel-lost"]
    eventually(lambda: client.status().since != since, "the loss is noticed")
    client.wait_ready(PATIENCE_S)
    assert run(client, "true")[0] == 0
    with socket.create_connection((LISTEN, port)) as conn:
        assert conn.recv(6) == b"* OK\r\n"
    assert len({str(hello["client_key"]) for hello in guest.hellos}) == len(guest.hellos) == 2


@needs_sshd
@pytest.mark.skipif(
    not Path("/run/hosts").exists() or not Path("/run/hosts").samefile("/etc/hosts"),
    reason="an /etc/hosts of our own is needed (scripts/in-namespace)",
)
def test_a_server_that_moved_is_found_at_its_new_address(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    """As after a machine was suspended: the name stays, what it stands for does not."""
    hosts, before = Path("/etc/hosts"), Path("/etc/hosts").read_text()
    old = EchoServer("127.0.0.2")
    new, port = EchoServer("127.0.0.3", old.port), free_port()
    guest.start()
    hosts.write_text(f"{before}\n127.0.0.2 imap.moves.test\n")
    try:
        start(forwards=[{**forward(port, old.port), "connect_host": "imap.moves.test"}])
        since = client.wait_ready(PATIENCE_S).since
        with socket.create_connection((LISTEN, port)) as conn:
            assert conn.recv(6) == b"* OK\r\n"
        hosts.write_text(f"{before}\n127.0.0.3 imap.moves.test\n")
        guest.cut()
        eventually(lambda: client.status().since != since, "the loss is noticed")
        client.wait_ready(PATIENCE_S)
        with socket.create_connection((LISTEN, port)) as conn:
            assert conn.recv(6) == b"* OK\r\n"
    finally:
        hosts.write_text(before)
    assert (old.accepted, new.accepted) == (1, 1)


@needs_sshd
def test_a_warden_ends_with_its_machine(
    guest: Guest, start: Starter, client: WardenClient, folder: Path
) -> None:
    guest.start()
    process = start()
    client.wait_ready(PATIENCE_S)
    guest.power_off()
    assert process.wait(PATIENCE_S) == 0
    assert nothing_left(folder)


@needs_sshd
@pytest.mark.parametrize("how", ["stop", "SIGTERM"])
def test_a_warden_ends_when_told_to(
    guest: Guest, start: Starter, client: WardenClient, folder: Path, how: str
) -> None:
    guest.start()
    process = start()
    client.wait_ready(PATIENCE_S)
    if how == "stop":
        client.stop()
        assert nothing_left(folder)
    else:
        process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert nothing_left(folder)
    client.stop()


def test_a_machine_that_never_answers(start: Starter, client: WardenClient, folder: Path) -> None:
    process = start(connect_deadline_s=1)
    assert refused_code(lambda: client.wait_ready(PATIENCE_S)) == "machine-silent"
    assert process.wait(PATIENCE_S) == 69
    assert nothing_left(folder)


def test_waiting_has_its_own_deadline(guest: Guest, start: Starter, client: WardenClient) -> None:
    start()
    eventually(lambda: _state(client) == "connecting", "the warden answers")
    assert refused_code(lambda: client.wait_ready(0.1)) == "machine-silent"
    assert refused_code(lambda: run(client, "true")) == "machine-silent"
    client.stop()


def _state(client: WardenClient) -> str:
    try:
        return client.status().state
    except MailboxError:
        return ""


def test_a_bad_configuration_or_an_open_folder_is_refused(start: Starter, folder: Path) -> None:
    process = start(forwards=[forward(993, 993, listen="0.0.0.0")])
    assert process.wait(PATIENCE_S) == 64
    folder.chmod(0o755)
    assert start().wait(PATIENCE_S) == 73
    assert nothing_left(folder)


# Hostile guests


def test_noise_before_ready_is_bounded(guest: Guest, start: Starter, client: WardenClient) -> None:
    def script(_guest: Guest, conn: socket.socket) -> None:
        while True:
            conn.sendall(b"\x1b[2J" * 10_000)

    guest.script = script
    guest.start()
    start()
    eventually(lambda: "noise" in _reason(client), "the noise is refused")
    client.stop()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"MAILBOX-READY {}\n", "another form"),
        (b'MAILBOX-READY {"v":1,"host_key":"ssh-rsa AAAA"}\n', "not an ed25519 key"),
        (b"MAILBOX-READY " + b"[" * 8000 + b"\n", "not JSON"),
    ],
)
def test_a_wrong_ready_line_is_refused(
    guest: Guest, start: Starter, client: WardenClient, line: bytes, reason: str
) -> None:
    def script(_guest: Guest, conn: socket.socket) -> None:
        conn.sendall(line)
        conn.recv(1 << 20)

    guest.script = script
    guest.start()
    start()
    eventually(lambda: reason in _reason(client), "the line is refused")
    client.stop()


def _reason(client: WardenClient) -> str:
    try:
        return client.status().reason
    except MailboxError:
        return ""


class HostileServer:
    """An SSH server of the guest's own making, on which a test plays tricks."""

    def __init__(self, trick: Callable[[asyncssh.SSHServerConnection], Any]) -> None:
        self.trick = trick
        self.result: list[Any] = []
        self.announced_key: str | None = None
        self.begin = threading.Event()

    def __call__(self, guest: Guest, conn: socket.socket) -> None:
        guest.hellos.append(read_hello(conn))
        private, public = make_host_key(guest)
        conn.sendall(ready_line(self.announced_key or public))
        asyncio.run(self._serve(conn, private))

    async def _serve(self, conn: socket.socket, private: Path) -> None:
        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return False

            def server_requested(self, _host: str, _port: int) -> Any:
                return asyncssh.SSHListener()

        try:
            server = await asyncssh.run_server(
                conn.dup(), server_factory=Server, server_host_keys=[str(private)]
            )
        except (OSError, asyncssh.Error) as error:
            self.result.append(error)
            return
        while not self.begin.is_set():
            await asyncio.sleep(0.02)
        self.result.append(await self.trick(server))
        await server.wait_closed()


async def _open_error(opening: Any) -> str:
    try:
        await opening
    except asyncssh.ChannelOpenError as error:
        return str(error.reason)
    return "opened"


def test_a_guest_reaches_nothing_but_its_forwards(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    allowed, other = EchoServer(), EchoServer()

    async def trick(server: asyncssh.SSHServerConnection) -> list[str]:
        session: Any = asyncssh.SSHTCPSession
        origin = ("127.0.0.1", 1)
        claims = [
            (LISTEN, 2),
            ("127.0.0.1", other.port),
            ("127.0.0.1", allowed.port),
            ("imap.kunde.test", 1993),
            ("", 0),
        ]
        answers = [
            await _open_error(server.create_connection(session, host, port, *origin))
            for host, port in claims
        ]
        for kind in (b"direct-tcpip", b"session", b"auth-agent@openssh.com", b"x11"):
            channel: Any = server.create_tcp_channel()
            arguments = (
                ()
                if kind in (b"session", b"auth-agent@openssh.com")
                else (asyncssh.packet.String("127.0.0.1"), asyncssh.packet.UInt32(other.port))
            )
            more = arguments if kind == b"direct-tcpip" else ()
            answers.append(await _open_error(channel._open(kind, *arguments, *more)))
        answers.append(
            await _open_error(server.create_unix_connection(session, "/run/user/0/gpg-agent"))
        )
        answers.append(await _open_error(server.create_connection(session, LISTEN, 1993, *origin)))
        return answers

    hostile = HostileServer(trick)
    guest.script = hostile
    guest.start()
    start(forwards=[forward(1993, allowed.port)])
    client.wait_ready(PATIENCE_S)
    hostile.begin.set()
    eventually(lambda: hostile.result, "the tricks are played")
    *refused, granted = hostile.result[0]
    assert len(refused) == 10
    assert "opened" not in refused
    assert granted == "opened"
    assert other.accepted == 0
    assert client.status().forwards[0].connections == 1
    client.stop()


def test_a_server_with_another_key_than_announced_is_refused(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    async def trick(_server: asyncssh.SSHServerConnection) -> str:
        return "accepted"

    hostile = HostileServer(trick)
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()
    hostile.announced_key = " ".join(key[:2])
    guest.script = hostile
    guest.start()
    start()
    eventually(lambda: "another key" in _reason(client), "the key is refused")
    assert "accepted" not in hostile.result
    client.stop()


def test_a_guest_that_asks_and_never_reads_costs_bounded_memory(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    """Each refused open is answered; a guest that never takes the answers is not heard further."""

    async def trick(server: asyncssh.SSHServerConnection) -> str:
        transport: Any = server._transport
        transport.pause_reading()
        transport.set_write_buffer_limits(high=1 << 20)
        string, number = asyncssh.packet.String, asyncssh.packet.UInt32
        sent, idle = 0, 0
        while idle < 50 and sent < 400_000:
            if transport.get_write_buffer_size() < 1 << 19:
                idle = 0
                for _ in range(1000):
                    arguments = (number(sent), number(1 << 31), number(1 << 15))
                    server.send_packet(90, string(b"session"), *arguments)
                    sent += 1
                await asyncio.sleep(0)
            else:
                idle += 1
                await asyncio.sleep(0.02)
        return "stuck" if idle == 50 else "all taken"

    hostile = HostileServer(trick)
    guest.script = hostile
    guest.start()
    process = start()
    client.wait_ready(PATIENCE_S)
    hostile.begin.set()
    eventually(lambda: hostile.result, "the trick is over")
    assert hostile.result == ["stuck"]
    assert resident(process) < 200 << 20
    assert client.status().state == "ready"
    client.stop()


class FloodServer:
    """Sends without end and knows how much was taken."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.create_server((host, port))
        self.port = int(self._listener.getsockname()[1])
        self.taken = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        conn, _ = self._listener.accept()
        with conn, contextlib.suppress(OSError):
            while True:
                self.taken += conn.send(bytes(65536))


def test_a_guest_that_grants_everything_and_reads_nothing_costs_bounded_memory(
    guest: Guest, start: Starter, client: WardenClient
) -> None:
    flood = FloodServer()

    async def trick(server: asyncssh.SSHServerConnection) -> str:
        session: Any = asyncssh.SSHTCPSession
        await server.create_connection(session, LISTEN, 1993, "127.0.0.1", 1, window=1 << 31)
        transport: Any = server._transport
        transport.pause_reading()
        before, same = -1, 0
        while same < 50 and flood.taken < 1 << 30:
            same = same + 1 if flood.taken == before else 0
            before = flood.taken
            await asyncio.sleep(0.02)
        return "stuck" if same == 50 else "all taken"

    hostile = HostileServer(trick)
    guest.script = hostile
    guest.start()
    process = start(forwards=[forward(1993, flood.port)])
    client.wait_ready(PATIENCE_S)
    hostile.begin.set()
    eventually(lambda: hostile.result, "the trick is over")
    assert hostile.result == ["stuck"]
    assert resident(process) < 200 << 20
    client.stop()


def resident(process: subprocess.Popen[bytes]) -> int:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096


# Hostile or broken clients of the control socket


def test_broken_clients_get_an_error_and_do_no_harm(
    guest: Guest, start: Starter, client: WardenClient, folder: Path
) -> None:
    start()
    eventually(lambda: _state(client) == "connecting", "the warden answers")
    for line in (b"\n", b"{}\n", b'{"op":"erase"}\n', b"\xff" * 100 + b"\n", b"x" * (3 << 20)):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(folder / "warden.sock"))
            try:
                sock.sendall(line)
                assert b'"code":"request"' in sock.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                # The warden may hang up before it has read all of a line that is too long.
                assert len(line) > 1 << 20
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(folder / "warden.sock"))
        sock.sendall(encode_request(Request(Op.WAIT, deadline_s=1000))[:-1])
    assert client.status().state == "connecting"
    client.stop()


def test_one_that_is_held_leaves_its_machine_alone_until_it_is_waited_for(
    start: Starter, client: WardenClient, folder: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as machine:
        machine.bind(str(folder / "held.sock"))
        machine.listen()
        start(channel_socket=str(folder / "held.sock"), held=True)
        eventually(lambda: (folder / "warden.sock").exists(), "it serves")
        assert client.status().state == "connecting"
        machine.setblocking(False)
        with pytest.raises(BlockingIOError):
            machine.accept()
        machine.setblocking(True)
        asking = threading.Thread(target=lambda: refused_code(lambda: client.wait_ready(1)))
        asking.start()
        with machine.accept()[0] as connection:
            assert b"MAILBOX-HELLO" in connection.recv(64)
        asking.join()
