"""What this computer can do and what is missing, for `mailbox doctor`.

Gathering facts (`system`, `disks`, `kvm`) is apart from judging them, so that judgements are
tested with recorded facts.
"""

from sandbox.host.probes.collect import Sources, collect
from sandbox.host.probes.facts import KeyringFacts, KvmDevice, KvmProof, LibvirtFacts, ProofKind
from sandbox.host.probes.finding import Finding, Level
from sandbox.host.probes.kvm import prove_kvm

__all__ = [
    "Finding",
    "KeyringFacts",
    "KvmDevice",
    "KvmProof",
    "Level",
    "LibvirtFacts",
    "ProofKind",
    "Sources",
    "collect",
    "prove_kvm",
]
