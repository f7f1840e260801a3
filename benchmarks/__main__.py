"""All benchmarks, one after another: `python -m benchmarks [NAME...] [--json FILE] [--quick]`.

Each also runs alone: `python -m benchmarks.NAME --help`.  Run as an ordinary user on a computer
that does nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import goals, write

# In this order; a quick run shows that all of them work, its figures are worth little.
NAMES = ("open", "volume", "channel", "cli", "size", "shred", "many")
QUICK = {
    "open": ("--rounds", "1"),
    "volume": ("--quick",),
    "channel": ("--quick",),
    "size": ("--rounds", "1"),
    "shred": ("--rounds", "1", "--sizes", "10M,1G"),
    "many": ("--count", "20", "--without-thunderbird"),
}


def run_one(name: str, file: Path, *, quick: bool) -> bool:
    """One benchmark as a process of its own; whether it wrote what it found."""
    print(f"== {name}", flush=True)
    options = QUICK.get(name, ()) if quick else ()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file), *options]
    done = subprocess.run(command, check=False)
    return done.returncode == 0 and file.exists()


def main() -> int:
    """Run, report, and write everything into one file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to FILE")
    parser.add_argument("--quick", action="store_true", help="as few rounds as possible")
    wanted = parser.parse_args()
    names = wanted.names or NAMES
    unknown = [name for name in names if importlib.util.find_spec(f"benchmarks.{name}") is None]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}")
    documents, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            file = Path(folder) / f"{name}.json"
            if run_one(name, file, quick=wanted.quick):
                documents.append(json.loads(file.read_text()))
            else:
                failed.append(name)
    if wanted.json is not None:
        wanted.json.write_text(json.dumps({"benchmarks": documents}, indent=2) + "\n")
    found = write.findings({"benchmarks": documents}) if documents else []
    print("\nGoals\n" + goals.report(each for one in found for each in one.figures))
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
