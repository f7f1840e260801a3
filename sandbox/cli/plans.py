"""`--dry-run`: the steps of a verb and the reason of each, before it runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from sandbox.cli.output import Printer
from sandbox.lifecycle.engine import Plan

DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Show the steps and the reason of each; do nothing."
)


def show_plan(printer: Printer, plan: Plan, **facts: Any) -> None:
    """A plan that is not run."""
    if printer.as_json:
        printer.document(plan_document(plan) | facts)
        return
    if not plan.steps:
        printer.line(f"`mailbox {plan.verb} {plan.name}` would do nothing.")
        return
    printer.line(f"`mailbox {plan.verb} {plan.name}` would do this; nothing was done:")
    for number, step in enumerate(plan.steps, start=1):
        printer.line(f"{number:3}. {step.title}: {step.reason}")


def show_plans(printer: Printer, plans: list[Plan], nothing: str) -> None:
    """Several plans that are not run."""
    if printer.as_json:
        printer.document({"ok": True, "dry_run": True, "plans": [plan_document(p) for p in plans]})
        return
    if not plans:
        printer.line(nothing)
    for plan in plans:
        show_plan(printer, plan)


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan as a JSON object."""
    steps = [asdict(step) for step in plan.steps]
    return {"ok": True, "dry_run": True, "verb": plan.verb, "name": plan.name, "steps": steps}
