"""How much one forward of the channel carries, on this computer alone: a real warden and `sshd`.

    python -m benchmarks.channel [--megabytes N] [--rounds N] [--json FILE]

No machine takes part: OpenSSH's server stands at a UNIX socket, as it does in a guest.  Client and
server of the connection, the warden and `sshd` are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import computer, goals
from benchmarks.goals import Finding, Measured, Table
from benchmarks.samples import Sample, figure, of_kind
from sandbox.channel.client import WardenClient
from tests.host.warden_guest import Guest

LISTEN = "127.0.9.201"
PATIENCE_S = 60.0
DOWN, UP = "down", "up"
IN_NAMESPACE = Path(__file__).parents[1] / "scripts" / "in-namespace"
# One end of a connection, in a process of its own: `SIDE ADDRESS PORT BYTES WHAT`.
END = """
import socket, sys
side, address, port, left, what = sys.argv[1:]
left, block = int(left), memoryview(bytearray(262144))
if side == "serve":
    with socket.create_server((address, int(port))) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
else:
    sock = socket.create_connection((address, int(port)))
while left and what == "send":
    left -= sock.send(block[:left])
while left and what == "receive":
    got = sock.recv_into(block)
    if not got:
        sys.exit("the connection ended too early")
    left -= got
if what == "receive":
    sock.sendall(b"!")
else:
    assert sock.recv(1) == b"!"
"""


class ChannelError(Exception):
    """The bytes did not arrive."""


def end(side: str, port: int, size: int, what: str) -> subprocess.Popen[bytes]:
    """Start one end of a connection."""
    address = "127.0.0.1" if side == "serve" else LISTEN
    command = [sys.executable, "-c", END, side, address, str(port), str(size), what]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@contextmanager
def warden(folder: Path, server_port: int, listen_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A warden with one forward, its channel up."""
    guest = Guest(folder).start()
    forward = {"name": "imap", "listen": LISTEN, "port": listen_port}
    config = {
        "profile_id": "0",
        "name": "benchmark",
        "channel_socket": str(guest.socket_path),
        "control_socket": str(folder / "warden.sock"),
        "hostname": "benchmark",
        "log_file": str(folder / "warden.log"),
        "connect_deadline_s": PATIENCE_S,
        "forwards": [forward | {"connect_host": "127.0.0.1", "connect_port": server_port}],
    }
    command = [sys.executable, "-m", "sandbox.channel.warden"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode())
    process.stdin.close()
    try:
        WardenClient(folder / "warden.sock").wait_ready(PATIENCE_S)
        yield process
    finally:
        process.kill()
        process.wait()
        guest.power_off()


def free_port() -> int:
    """A port of the listener's address that nobody has."""
    with socket.create_server((LISTEN, 0)) as probe:
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(way: str, number: int, size: int) -> Sample:
    """Carry `size` bytes one way; from the connection's begin until the receiver has all."""
    sample = Sample("channel", way, number)
    with tempfile.TemporaryDirectory(prefix="mbb-") as name:
        folder = Path(name)
        server = end("serve", 0, size, "send" if way == DOWN else "receive")
        assert server.stdout is not None
        port, listen = int(server.stdout.readline()), free_port()
        with warden(folder, port, listen) as process:
            before = cpu_seconds(process.pid)
            begun = time.monotonic()
            client = end("connect", listen, size, "receive" if way == DOWN else "send")
            codes = [client.wait(PATIENCE_S * 5), server.wait(PATIENCE_S)]
            sample.add("seconds", time.monotonic() - begun)
            sample.add("warden's processor seconds", cpu_seconds(process.pid) - before)
        if any(codes):
            raise ChannelError(f"the ends of the connection ended with {codes}")
    sample.add("MB/s", size / 1e6 / sample.seconds["seconds"])
    return sample


def finding(samples: list[Sample], size: int) -> Finding:
    """Figures and a table."""
    figures, rows = [], []
    for way in (DOWN, UP):
        group = of_kind(samples, "channel", way)
        rate, used = figure(group, "MB/s"), figure(group, "warden's processor seconds")
        assert rate is not None and used is not None
        share = used.median / (size / 1e6) * 1000
        why = f"The warden uses {share:.1f} ms of a processor for each MB."
        figures.append(Measured(f"channel-{way}", rate.median, rate.least, rate.most, why))
        ends = f"{rate.least:.0f} to {rate.most:.0f}"
        rows.append((way, f"{rate.median:.0f}", ends, f"{share:.1f}"))
    table = Table(
        "The channel",
        ("Way", "MB/s", "Ends", "Processor time of the warden, ms a MB"),
        tuple(rows),
        f"One connection, {size / 1e6:.0f} MB each way, {len(samples) // 2} rounds.",
    )
    seen = [vars(sample) for sample in samples]
    return Finding("channel", computer.facts(), figures, (table,), seen)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.channel", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    said = parser.parse_args()
    if os.geteuid() != 0:
        # `sshd` wants to be root, if only of a namespace.
        command = [str(IN_NAMESPACE), sys.executable, "-m", "benchmarks.channel", *sys.argv[1:]]
        os.execv(command[0], command)
    size, rounds = (50_000_000, 1) if said.quick else (said.megabytes * 10**6, said.rounds)
    samples = []
    for number in range(1, rounds + 1):
        for way in (DOWN, UP):
            samples.append(measure(way, number, size))
            print(f"round {number}, {way}: {samples[-1].seconds}", flush=True)
    found = finding(samples, size)
    print(goals.report(found.figures))
    if said.json is not None:
        found.write(said.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
