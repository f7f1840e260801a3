"""`keys forget`: destroy a key that the mailbox had before, and with it the mail of its time."""

from __future__ import annotations

from sandbox.lifecycle.engine import Plan
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.keychange import DOOMED, Draft, change, steps_of_change
from sandbox.lifecycle.own_keys import changing, result_of
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.profile import Profile


def plan_forget(profile: Profile, fingerprint: str) -> Plan:
    """The steps of `keys forget`; none when the key was forgotten already.

    Raises:
        MailboxError: `key-in-use` for the own key, `key-not-found` for one it never had.
    """
    if fingerprint == profile.keys.fingerprint:
        raise MailboxError(
            f"{fingerprint} is the key that {profile.name} uses; nothing was destroyed.",
            resolution=f"`mailbox keys rotate {profile.name}` first gives it another.",
            code="key-in-use",
            exit_code=Exit.KEYS,
        )
    if fingerprint in profile.keys.forgotten:
        return Plan("keys forget", profile.name, ())
    if fingerprint not in profile.keys.retired:
        raise MailboxError(
            f"{profile.name} has no key {fingerprint} of before; nothing was destroyed.",
            resolution=f"`mailbox keys list {profile.name}` shows its `retired` keys; "
            "`mailbox keys remove` is for those of correspondents.",
            code="key-not-found",
            exit_code=Exit.KEYS,
        )
    reason = "nobody can read the mail of its time any more"
    steps = steps_of_change("Destroying the secret of the key", reason)
    return Plan("keys forget", profile.name, steps, {DOOMED: fingerprint})


def forget(house: House, name: str, fingerprint: str) -> Result:
    """Destroy the secret of a retired key; what revokes it and its public part stay."""

    def destroy(draft: Draft) -> None:
        draft.own.destroy_secret(fingerprint)

    with changing(house, name, "keys forget") as profile:
        plan = plan_forget(profile, fingerprint)
        if not plan.steps:
            return Result(
                plan.verb,
                profile.name,
                f"The secret of {fingerprint} was destroyed before.",
                {"fingerprint": fingerprint, "already": True},
            )
        change(house, plan, Draft(house, profile, needed=False), destroy)
    summary = f"The secret of {fingerprint} is destroyed on this computer."
    facts = {"fingerprint": fingerprint, "already": False}
    return result_of(house, plan.verb, profile.name, summary, facts)
