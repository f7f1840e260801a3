"""mailbox: a machine of its own for every customer's mail."""

__version__ = "0.1.0"
