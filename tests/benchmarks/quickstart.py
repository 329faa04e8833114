"""What `slimfleet-simulate digits --baseline` prints when it is done, for README.

    python tests/benchmarks/quickstart.py docs/results

writes `quickstart.md` there. Under a minute.
"""

from __future__ import annotations

import datetime
import io
import platform
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from slimfleet.compression.files import write_atomically
from slimfleet.simulations import load_scenario, simulate
from slimfleet.simulations.closing import closing_table


def main(folder: Path) -> None:
    """Run the quickstart and write its closing tables."""
    with tempfile.TemporaryDirectory() as out:
        record, plain = simulate(load_scenario("digits"), Path(out) / "digits", baseline=True)
    text = io.StringIO()
    Console(file=text, width=80).print(closing_table(record, plain))
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# The quickstart",
        "",
        f"Written by `make bench-quickstart` ({today}, {platform.machine()}, Python {platform.python_version()}):",
        "what `slimfleet-simulate digits --baseline` prints at its end.",
        "",
        "```text",
        *(line.rstrip() for line in text.getvalue().strip().splitlines()),
        "```",
    ]
    write_atomically(folder / "quickstart.md", ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
