"""How long `mailbox open` takes, beside an ordinary Debian desktop machine on the same computer.

    python -m benchmarks.open [--rounds N] [--json FILE] [--without-stock]

Run as an ordinary user.  README.md says what is measured and why the comparison is fair.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks import computer, goals, report, scene
from benchmarks.emulation import slowness
from benchmarks.mailbox import Mailbox, MailboxError
from benchmarks.samples import Sample
from benchmarks.scene import Post, say
from benchmarks.stock import Hardware, StockMachine, stock_machine
from benchmarks.stockimage import StockError, build
from demo.desired import desired_state
from demo.main import root_folder


class Benchmark:
    """Rounds of an open of each kind, and a start of the stock machine."""

    def __init__(self, mailbox: Mailbox, post: Post) -> None:
        self.samples: list[Sample] = []
        self._mailbox = mailbox
        self._post = post

    def rounds(self, count: int, stock: StockMachine | None) -> None:
        """The sides take turns, so that another load on this computer meets both."""
        for number in range(1, count + 1):
            self._mailbox.renew()
            for kind in ("first open", "later open", "warm open"):
                warm = kind == "warm open"
                self._add(self._mailbox.measure(kind, number, self._post.newest(), warm=warm))
            self._add(self._mailbox.measure_suspended(number, self._post.newest))
            if stock is not None:
                self._add(stock.measure(number, self._post.newest()))

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        seconds = sample.seconds[report.END]
        say(f"round {sample.round}: {sample.side}, {sample.kind}: {seconds:.1f} s to the inbox")
        for warning in sample.warnings:
            say(f"  warning: {warning}")


def run(rounds: int, *, with_stock: bool) -> tuple[list[Sample], Hardware, float]:
    """All measurements: samples, the machine, and how much slower it is than this computer."""
    with ExitStack() as stack:
        image = build(root_folder(), say) if with_stock else None
        prepared = stack.enter_context(scene.prepared())
        mailbox = Mailbox(prepared)
        mailbox.renew()
        say("opening once to learn what its machine has")
        mailbox.open()
        hardware = mailbox.hardware()
        slow = slowness(mailbox.run)
        mailbox.shut()
        stock = None
        if image is not None:
            stock = stack.enter_context(stock_machine(image, hardware))
            say("setting the account up in the stock machine")
            people = (prepared.customer, (prepared.partner,))
            stock.set_up(desired_state(prepared.server, *people), prepared.post.newest())
        benchmark = Benchmark(mailbox, prepared.post)
        benchmark.rounds(rounds, stock)
    return benchmark.samples, hardware, slow


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.open", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--without-stock", action="store_true", help="measure the mailbox alone")
    return parser.parse_args(argv)


def main() -> int:
    """Measure and print."""
    wanted = arguments()

    def measure() -> None:
        samples, hardware, slow = run(wanted.rounds, with_stock=not wanted.without_stock)
        machine = {f"machine: {name}": str(value) for name, value in asdict(hardware).items()}
        facts = computer.facts() | machine | {"machine: slower by": f"{slow:.1f}"}
        for name, value in facts.items():
            print(f"{name + ':':<21} {value}")
        print("\n" + report.table(samples))
        figures = report.figures(samples)
        print("\nGoals\n" + goals.report(figures))
        if wanted.json is not None:
            tables = report.tables(samples, slow)
            seen = [asdict(sample) for sample in samples]
            goals.Finding("open", facts, figures, tables, seen).write(wanted.json)

    return scene.run(measure, MailboxError, StockError)


if __name__ == "__main__":
    raise SystemExit(main())
