#!/usr/bin/python3 -ES
"""`mailbox-guest`: what the host asks of a running guest, over SSH, as root."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import client
import desired as desired_state
import desktop
import memory
import private_keys
import say
import sleeper
import volume

LOCK = Path("/run/mailbox/guest.lock")
OPENED = Path("/run/mailbox/opened")
# The client removes it once it is applied; nothing else may leave it behind.
WITH_SECRETS = Path("/run/mailbox-client/desired.json")
# The channel takes it at its next hello.
NEXT_KEY = Path("/run/mailbox/channel/next_key")
CLIENT_PID = Path("/run/mailbox/client.pid")
MAX_STATE = 16 * 1024 * 1024
CLOSE_DEADLINE_S = 20.0


def provision() -> None:
    """Bring the guest to the desired state on standard input; the client is usable afterwards."""
    desired = read_desired()
    volume.open_volume(desired["volume"]["blank"])
    say.phase("volume")
    if desired.get("openpgp", {}).get("custody") == "host":
        private_keys.forget(volume.HOME)
    say.phase("home")
    desktop.write_hosts(desired["hosts"])
    desktop.set_time_zone(desired["time_zone"])
    say.phase("hosts")
    desktop.wait_for_screen()
    desktop.set_keyboard(desired["keyboard"])
    desktop.show_bar(desired["profile"]["name"], desired["profile"]["colour"])
    start_client(desired)
    OPENED.touch()
    say.phase("ready")


def read_desired() -> dict:
    """Read and check the desired state."""
    text = sys.stdin.buffer.read(MAX_STATE + 1)
    if len(text) > MAX_STATE:
        raise say.FailureError("bad-state", "the desired state is too long")
    try:
        return desired_state.check(json.loads(text))
    except (ValueError, RecursionError) as error:
        # The text holds passwords: only the place of the mistake is said.
        place = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise say.FailureError("bad-state", f"the desired state is not JSON{place}") from None
    except desired_state.BadStateError as error:
        raise say.FailureError("bad-state", str(error)) from None


def start_client(desired: dict) -> None:
    """Start the mail client, or let the running one follow; pass its events on until usable."""
    try:
        client.prepare(desired, volume.HOME)
        if mail := getattr(client, "local_mail", None):
            volume.write_through(mail(volume.HOME))
        process = client.start(desired)
        if process is not None:
            CLIENT_PID.write_text(str(process.pid), "ascii")
        say.phase("client-started")
        for event in client.events():
            pass_on(event)
    except (OSError, subprocess.SubprocessError) as error:
        raise say.FailureError(
            "client-failed", f"the mail client did not start: {error}"
        ) from error


def pass_on(event: dict) -> None:
    """Forward an event of the client; an error ends the command, `ready` is said at the end."""
    if event.get("event") == "error":
        raise say.FailureError(str(event.get("code")), str(event.get("message")))
    if event.get("name") != "ready":
        say.event(event)


def suspend_prepare() -> None:
    """Make ready to be put away: little memory in use, and a file system that rests."""
    if volume.mounted_source() is None or not client_runs():
        raise say.FailureError("not-open", "there is no mail client to suspend")
    doze = getattr(client, "doze", None)
    if doze:
        doze()
    make_next_key()
    # Before the caches are emptied: what it needs stays in its own memory.
    sleeper.begin(lambda: perform(resume))
    os.sync()
    say.phase("synced")
    memory.let_go()
    memory.give_back()
    say.phase("emptied")
    volume.freeze()
    say.phase("ready")


def make_next_key() -> None:
    """The SSH server's key for the return: used once, and resting encrypted until then."""
    for old in (NEXT_KEY, NEXT_KEY.with_suffix(".pub")):
        old.unlink(missing_ok=True)
    keygen = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(NEXT_KEY)]
    subprocess.run(keygen, stdin=subprocess.DEVNULL, check=True)


def resume() -> None:
    """Go on after having been put away."""
    volume.thaw()
    say.phase("home")
    # A client without it notices by itself that its connections are gone.
    wake = getattr(client, "wake", None)
    for event in wake() if wake else ():
        pass_on(event)
    say.phase("ready")


def check() -> None:
    """Let the client prove that it can use the keys named on standard input; a word of each."""
    request = read_request()
    if volume.mounted_source() is None or not client_runs():
        raise say.FailureError("not-open", "there is no mail client that could try its keys")
    hook = getattr(client, "check", None)
    if hook is None:
        raise say.FailureError("check-unknown", "this mail client cannot try its keys")
    for event in hook(request):
        pass_on(event)
    say.phase("ready")


def read_request() -> dict:
    """Which keys to try: `own` (or null), `custody`, and the `correspondents`."""
    text = sys.stdin.buffer.read(MAX_STATE + 1)
    try:
        return desired_state.check_keys(json.loads(text))
    except (ValueError, RecursionError, desired_state.BadStateError) as error:
        raise say.FailureError("bad-request", f"not a list of keys: {error}") from None


def client_runs() -> bool:
    """Whether the client that was started last is still there."""
    try:
        state = Path(f"/proc/{int(CLIENT_PID.read_text('ascii'))}/stat").read_text("ascii")
    except (OSError, ValueError):
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


def shutdown() -> None:
    """Close the client, put the volume away, switch the machine off."""
    if not client.close(CLOSE_DEADLINE_S):
        say.warning("client-killed", "the mail client did not close and was ended")
    say.phase("client-closed")
    end_user_processes()
    if not volume.close_volume():
        say.warning("volume-busy", "the volume could not be put away cleanly")
    say.phase("off")
    power_off()


def end_user_processes() -> None:
    """End whatever the user still runs: it could hold files of the volume open."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in user_processes():
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        end = time.monotonic() + 2.0
        while user_processes() and time.monotonic() < end:
            time.sleep(0.05)


def user_processes() -> list[int]:
    """The processes of the mail client's user."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == volume.USER_ID:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def power_off() -> None:
    """Leave a moment for the last line to reach the host, detached from this connection."""
    subprocess.Popen(
        ["/usr/bin/sh", "-c", "sleep 0.3; exec busybox poweroff -f"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def status() -> None:
    """Say in one line what is going on."""
    say.event(
        {
            "event": "status",
            "uptime": say.uptime(),
            "screen": desktop.X_SOCKET.exists(),
            "volume": volume.mounted_source() is not None,
            "opened": OPENED.exists(),
            "client": client_runs(),
        }
    )


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock of the commands that change something."""
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


VERBS: dict[str, Callable[[], None]] = {
    "provision": provision,
    "shutdown": shutdown,
    "suspend-prepare": suspend_prepare,
    "resume": resume,
    "check": check,
}


def main(arguments: list[str]) -> int:
    """Run one verb; every failure becomes an error event."""
    os.umask(0o022)
    if arguments == ["status"]:
        status()
        return 0
    verb = VERBS.get(arguments[0]) if len(arguments) == 1 else None
    if verb is None:
        say.error("usage", f"mailbox-guest {'|'.join([*VERBS, 'status'])}")
        return 2
    return perform(verb)


def perform(verb: Callable[[], None]) -> int:
    """Do what was asked, with nobody else at it; returns the exit code."""
    try:
        with one_at_a_time():
            # A suspending that came to nothing may have left it frozen.
            volume.thaw()
            verb()
    except say.FailureError as failure:
        say.error(failure.code, failure.message)
        return 1
    except Exception as error:  # the host must learn of anything that goes wrong here
        say.error("guest-failed", f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
