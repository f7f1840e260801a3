#!/usr/bin/python3 -ES
"""The guest's end of the channel: hello, fresh keys, then `sshd -i` on the serial port; again.

Few imports: this is what the host waits for at every start.
"""
# Importing pathlib would take as long as all the rest.
# ruff: noqa: PTH103, PTH105, PTH108, PTH110, PTH112, PTH123, PTH208

import json
import os
import select
import socket
import sys
import time

PORT_NAME = "org.mailbox.channel.0"
PORTS = "/sys/class/virtio-ports"
STATE = "/run/mailbox/channel"
# For one connection only, made by a machine that is put away, for its return.
NEXT_KEY = f"{STATE}/next_key"
HELLO = b"MAILBOX-HELLO "
MAX_LINE = 8 * 1024
POLL_S = 0.1
SSHD = ["/usr/sbin/sshd", "-i", "-e", "-f", "/etc/ssh/mailbox_sshd_config"]


class BadHelloError(Exception):
    """The host's line is not a hello that can be followed."""


def log(message: str) -> None:
    """Write one line to the console, which the host can read."""
    print(f"mailbox: channel: {message}", file=sys.stderr, flush=True)


def find_port() -> str:
    """Return the device of the channel's port, waiting until the kernel has it."""
    while True:
        for port in sorted(os.listdir(PORTS)) if os.path.isdir(PORTS) else []:
            with open(f"{PORTS}/{port}/name", encoding="ascii") as file:
                if file.read().strip() == PORT_NAME:
                    return f"/dev/{port}"
        time.sleep(POLL_S)


def wait_for_host(port: int) -> None:
    """Return when the host side is connected: until then the port reports a hang-up."""
    poll = select.poll()
    poll.register(port, select.POLLIN)
    while any(event & select.POLLHUP for _, event in poll.poll(5000)):
        time.sleep(POLL_S)


def read_hello(port: int) -> bytes | None:
    """Return the JSON of the next hello, skipping anything else; None when the host left."""
    line = bytearray()
    while True:
        byte = os.read(port, 1)
        if not byte:
            return None
        if byte != b"\n":
            if len(line) <= MAX_LINE:
                line += byte
            continue
        if line.startswith(HELLO) and len(line) <= MAX_LINE:
            return bytes(line[len(HELLO) :])
        line.clear()


def check_hello(body: bytes) -> tuple[str, float, str]:
    """Return the client's key, the time and the host name of a hello."""
    try:
        hello = json.loads(body)
        version, key = hello["v"], hello["client_key"]
        now, hostname = float(hello["time"]), hello["hostname"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadHelloError(f"unreadable: {error}") from None
    words = key.split(" ") if isinstance(key, str) and key.isprintable() else []
    if version != 1:
        raise BadHelloError("another version")
    if len(words) not in (2, 3) or words[0] != "ssh-ed25519":
        raise BadHelloError("the client's key is not an ed25519 key")
    if not isinstance(hostname, str) or not is_hostname(hostname):
        raise BadHelloError("the host name is not one")
    return " ".join(words[:2]), now, hostname


def is_hostname(text: str) -> bool:
    """Whether this is one label of a host name."""
    return (
        0 < len(text) <= 63
        and text.isascii()
        and text.replace("-", "a").replace("_", "a").isalnum()
    )


def write_file(path: str, content: str, mode: int) -> None:
    """Replace a file, with this mode from the first byte on."""
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(content)
    os.replace(f"{path}.new", path)


def run(*argv: str) -> int:
    """Run a program to its end and return its exit status."""
    pid = os.posix_spawn(argv[0], argv, {"PATH": "/usr/sbin:/usr/bin"})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def make_host_key() -> str:
    """Make a new key for this connection and return its public half."""
    path = f"{STATE}/host_key"
    if os.path.exists(f"{NEXT_KEY}.pub"):
        os.replace(NEXT_KEY, path)
        os.replace(f"{NEXT_KEY}.pub", f"{path}.pub")
        return read_public(path)
    for old in (path, f"{path}.pub"):
        if os.path.exists(old):
            os.unlink(old)
    if run("/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path):
        raise BadHelloError("no host key could be made")
    return read_public(path)


def read_public(path: str) -> str:
    """Return the public half of a key, without a comment."""
    with open(f"{path}.pub", encoding="ascii") as file:
        return " ".join(file.read().split()[:2])


def follow_hello(body: bytes) -> bytes:
    """Take over the hello's clock, name and key, and return the answer."""
    client_key, now, hostname = check_hello(body)
    time.clock_settime(time.CLOCK_REALTIME, now)
    socket.sethostname(hostname)
    os.makedirs(STATE, 0o755, exist_ok=True)
    write_file(f"{STATE}/authorized_keys", f"restrict,port-forwarding,pty {client_key}\n", 0o644)
    answer = {"v": 1, "host_key": make_host_key()}
    return b"MAILBOX-READY " + json.dumps(answer).encode() + b"\n"


def serve_ssh(port: int) -> int:
    """Give the port to an SSH server until the host leaves."""
    pid = os.fork()
    if pid == 0:
        os.dup2(port, 0)
        os.dup2(port, 1)
        os.execv(SSHD[0], SSHD)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve_one(port: int) -> None:
    """Serve one connection of the host."""
    # The last sshd left its setting on the port, which it shared with this program.
    os.set_blocking(port, True)
    wait_for_host(port)
    body = read_hello(port)
    if body is None:
        return
    try:
        answer = follow_hello(body)
    except (BadHelloError, OSError, OverflowError, ValueError) as error:
        log(f"hello refused: {error}")
        return
    os.write(port, answer)
    status = serve_ssh(port)
    log(f"sshd ended with {status}")


def main() -> None:
    """Serve for ever; the port stays open, since its other half is told of every close."""
    os.umask(0o022)
    path = find_port()
    port = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    while True:
        serve_one(port)


if __name__ == "__main__":
    main()
