"""What a taken-over mail client finds: nothing but its own servers. Tried from inside."""

from __future__ import annotations

import json
import socket
import threading

from demo import traces
from tests.machine.conftest import NAME, World

_TRY = """
import json, socket
results = {}
for host, port in %r:
    try:
        socket.create_connection((host, port), timeout=8).close()
        results[f"{host}:{port}"] = "reached"
    except OSError as error:
        results[f"{host}:{port}"] = type(error).__name__
print(json.dumps(results))
"""


# What every profile makes for itself; found in an image it would be every customer's.
_SECRETS = "key4.db logins.json logins.db encrypted-openpgp-passphrase.txt secring.gpg prefs.js"


def test_the_image_brings_compiled_scripts_and_no_profile(opened: World) -> None:
    kept = opened.inside("find", "/var/cache/mailbox-client", "-type", "f", root=True).text
    assert "/startupCache/scriptCache-current.bin" in kept
    names = [word for name in _SECRETS.split() for word in ("-o", "-name", name)][1:]
    # The volume at /home is another file system.
    assert opened.inside("find", "/", "-xdev", "(", *names, ")", root=True).text == ""


def test_only_the_loopback_exists(opened: World) -> None:
    assert opened.inside("ls", "/sys/class/net").text.split() == ["lo"]
    assert "network" not in opened.inside("sh", "-c", "cat /sys/bus/pci/devices/*/uevent").text
    routes = opened.inside("cat", "/proc/net/route").text.splitlines()
    assert len(routes) == 1


def test_nothing_but_the_named_servers_is_reachable(opened: World) -> None:
    hits: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as trap:
        port = trap.getsockname()[1]
        trap.settimeout(60)

        def wait() -> None:
            try:
                hits.append(trap.accept())
            except OSError:
                return

        threading.Thread(target=wait, daemon=True).start()
        places = [
            ("127.0.0.1", port),
            ("127.0.9.1", port),
            ("127.0.9.1", 22),
            ("10.0.2.2", port),
            ("192.168.122.1", 22),
            ("192.0.2.1", 443),
            ("example.org", 443),
            ("smtp.kunde.test", 993),
            ("imap.kunde.test", 993),
        ]
        results = json.loads(opened.python_inside(_TRY % places))
    assert results.pop("imap.kunde.test:993") == "reached"
    assert "reached" not in results.values(), results
    assert not hits


def test_even_the_guests_root_reaches_nothing_else(opened: World) -> None:
    results = json.loads(opened.python_inside(_TRY % [("10.0.2.2", 80)], root=True))
    assert results == {"10.0.2.2:80": "OSError"}
    assert opened.inside("ls", "/sys/class/net", root=True).text.split() == ["lo"]


def test_the_mail_user_cannot_become_root(opened: World) -> None:
    setuid = opened.inside("find", "/", "-xdev", "-perm", "/6000", "-type", "f", root=True).text
    assert setuid.split() == []
    assert opened.inside("id", "-u").text.strip() == "1000"
    assert opened.inside("cat", "/etc/shadow").returncode != 0


def test_the_image_is_read_only(opened: World) -> None:
    written = opened.inside("dd", "if=/dev/zero", "of=/dev/vda", "count=1", root=True)
    assert written.returncode != 0


def test_the_volume_shows_no_plaintext(opened: World) -> None:
    opened.inside("sync", root=True)
    content = opened.volume.read_bytes()
    for needle in (opened.canary.encode(), b"anna@kunde.test", b"prefs.js", b"mailbox\0"):
        assert needle not in content


def test_the_home_is_on_the_volume_and_nowhere_else(opened: World) -> None:
    mounts = opened.inside("cat", "/proc/mounts").text.splitlines()
    home = [line.split() for line in mounts if line.split()[1] == "/home"]
    assert home
    assert home[0][2] == "ext4"
    assert {"nosuid", "nodev"} <= set(home[0][3].split(","))


def test_no_secret_is_in_processes_or_files_of_the_host(opened: World) -> None:
    hidden = [*opened.secrets, opened.paper.read_text().strip().encode(), opened.canary.encode()]
    assert traces.in_files(hidden, since=opened.begun, passing=opened.servers) == []
    assert traces.told(hidden) == []
    # The search does find: the recovery code is on its paper, the password with its server.
    elsewhere = traces.in_files(hidden, since=opened.begun)
    assert {opened.paper} <= {path for path, _ in elsewhere}


def test_libvirt_holds_no_secret_of_an_open_mailbox(opened: World) -> None:
    uri = ["virsh", "-q", "-c", "qemu:///session"]
    assert opened.session.run([*uri, "secret-list"]).stdout.strip() == b""
    (domain,) = opened.session.run([*uri, "list", "--all", "--name"]).stdout.split()
    assert domain.startswith(f"mailbox-{NAME}".encode())
