"""The kinds of secrets that rest in the keyring for a profile."""

VOLUME_KEY = "volume-key"
MAIL_PASSWORD = "mail-password"  # noqa: S105 - the name of an item
KEY_PASSPHRASE = "openpgp-passphrase"  # noqa: S105 - the name of an item
ITEMS = (VOLUME_KEY, MAIL_PASSWORD, KEY_PASSPHRASE)
# Only where calendars and address books have a password of their own.
DAV_PASSWORD = "dav-password"  # noqa: S105 - the name of an item
# Only while a suspended machine is kept.
STATE_KEY = "state-key"
# Only while there is an S/MIME certificate.
SMIME_PASSPHRASE = "smime-passphrase"  # noqa: S105 - the name of an item
KINDS = (*ITEMS, DAV_PASSWORD, STATE_KEY, SMIME_PASSPHRASE)
