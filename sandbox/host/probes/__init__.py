"""What this computer can do and what is missing, for `mailbox doctor`.

Gathering facts (`system`, `disks`, `kvm`) is apart from judging them, so that judgements are
tested with recorded facts.

Nothing is imported here: `mailbox list` needs one small module of this package.
"""
