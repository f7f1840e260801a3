"""Dovecot's configuration for one unprivileged server in one folder; 2.3 and 2.4 differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ports:
    """Loopback ports of one server."""

    imaps: int
    imap: int
    submissions: int
    submission: int
    lmtp: int
    relay: int

    def listening(self) -> tuple[int, ...]:
        """The ports that Dovecot listens on."""
        return (self.imaps, self.imap, self.submissions, self.submission, self.lmtp)


@dataclass(frozen=True)
class Account:
    """The system user that everything of the server runs as."""

    name: str
    group: str
    uid: int
    gid: int


def users_file(passwords: Mapping[str, str]) -> str:
    """Dovecot's passwd-file: one line a mailbox."""
    return "".join(f"{address}:{{PLAIN}}{word}\n" for address, word in passwords.items())


def configuration(version: str, folder: Path, ports: Ports, account: Account) -> str:
    """The whole dovecot.conf for a version such as `2.3.19.1`."""
    old = tuple(int(part) for part in version.split(".")[:2]) < (2, 4)
    head = _HEAD_2_3 if old else _HEAD_2_4
    values = {
        "folder": folder,
        "user": account.name,
        "group": account.group,
        "uid": account.uid,
        "gid": account.gid,
        **vars(ports),
    }
    text = head + _COMMON
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


_HEAD_2_3 = """\
protocols = imap submission lmtp
passdb {
  driver = passwd-file
  args = username_format=%u @folder@/users
}
userdb {
  driver = static
  args = uid=@uid@ gid=@gid@ home=@folder@/mail/%u
}
mail_location = maildir:~/Maildir
disable_plaintext_auth = yes
ssl_cert = <@folder@/server.pem
ssl_key = <@folder@/server.key
ssl_min_protocol = TLSv1.2
submission_relay_host = 127.0.0.1
submission_relay_port = @relay@
submission_relay_ssl = no
"""

_HEAD_2_4 = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
protocols {
  imap = yes
  submission = yes
  lmtp = yes
}
passdb passwd-file {
  passwd_file_path = @folder@/users
}
userdb static {
  fields {
    uid = @uid@
    gid = @gid@
    home = @folder@/mail/%{user}
  }
}
mail_driver = maildir
mail_path = ~/Maildir
mail_inbox_path = ~/Maildir
auth_allow_cleartext = no
ssl_server_cert_file = @folder@/server.pem
ssl_server_key_file = @folder@/server.key
ssl_min_protocol = TLSv1.2
submission_relay_host = 127.0.0.1
submission_relay_port = @relay@
submission_relay_ssl = no
"""

# Without `chroot =` these services fail for an ordinary user.
_COMMON = """\
base_dir = @folder@/run
state_dir = @folder@/state
log_path = @folder@/dovecot.log
default_internal_user = @user@
default_internal_group = @group@
default_login_user = @user@
first_valid_uid = 1
first_valid_gid = 1
listen = 127.0.0.1
ssl = required
auth_mechanisms = plain login
auth_failure_delay = 0
mail_max_userip_connections = 50

service imap-login {
  chroot =
  inet_listener imap {
    port = @imap@
  }
  inet_listener imaps {
    port = @imaps@
    ssl = yes
  }
}
service submission-login {
  chroot =
  inet_listener submission {
    port = @submission@
  }
  inet_listener submissions {
    port = @submissions@
    ssl = yes
  }
}
service anvil {
  chroot =
}
service lmtp {
  inet_listener lmtp {
    port = @lmtp@
  }
}
namespace inbox {
  inbox = yes
  separator = /
  mailbox Drafts {
    special_use = \\Drafts
    auto = subscribe
  }
  mailbox Sent {
    special_use = \\Sent
    auto = subscribe
  }
  mailbox Trash {
    special_use = \\Trash
    auto = subscribe
  }
}
"""
