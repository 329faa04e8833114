"""A federation of SuperNodes and gateway devices, killed by SIGKILL at drawn moments: SuperLink, gate and devices.

    PYTHONPATH=tests/benchmarks:tests/end_to_end python tests/benchmarks/chaos_mixed.py docs/results

writes `chaos-mixed.md` there. In a first run the SuperNode is spared: every device reports, and the model must be that
of a run that was left alone, byte for byte. In a second it is killed too. What it had begun is lost then, which Flower
finds out late: the round ends without it, and nothing may be counted twice. `--kills 2` for a part; without a folder
the page is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from board import BOARD
from chaos import Found, Victim, counted_wrongly, disturbed, summary
from flower_processes import environment, free_ports
from flower_tls import Deployment
from gateway_processes import Fleet
from page_parts import table, when

from slimfleet.compression.files import write_atomically

SUPERNODE, AT_GATEWAY = "pi-1", ("board-1", "board-2")
DEVICES = 1 + len(AT_GATEWAY)
ROUNDS = 8
KILLS = 8
"""Of each run."""
LONGEST_GAP_S = 25.0
"""Between a start and the next kill. All are by the clock, since Flower logs much that is no sign of work."""
TIMEOUT_S = 90.0
"""Of a round: longer than Flower believes in a SuperNode that has been killed."""

SETTINGS = """rounds = {rounds}
round_timeout_s = {timeout_s}
client = {{learning_rate = 0.05}}
selection = {{policy = "uniform", per_round = {devices}, min_devices = {devices}}}
planner = {{widths = [0.5], local_steps = [50], batch_sizes = [8], nmse = [0.05]}}

[gateway]
port = {port}
pki = "{pki}"
hold_s = 2.0
wait_s = 0.1
"""

SERVER = """cd {app}
{superlink} &
until (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.2; done
until [ -e {out}/report.html ]; do
    flwr run . fleet --stream --run-config "server.settings='{settings}' server.out='{out}'"
    sleep 1
done
kill $!
"""
"""What an operator does after a crash. `flwr run` exits with 0 whatever became of the run, which fails for as long as
what is left of the one before holds its folder."""


class Mixed:
    """The deployment, and the processes of a run on it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._deployment = Deployment(folder, (SUPERNODE,), (), shares=DEVICES)
        self._deployment.command(f"slimfleet-coordinator pki device pki {' '.join(AT_GATEWAY)}")
        with self._deployment:
            pass  # the database keeps who was registered
        (self._deployment.app / "board.json").write_text(json.dumps(asdict(BOARD)))
        self._fleet = Fleet(self._deployment.app, (SUPERNODE, *AT_GATEWAY), free_ports(1)[0])

    def victims(self, own: Path) -> list[Victim]:
        """The processes of a run, which leaves its results in a folder of its own."""
        made, port = self._deployment, self._fleet.port
        shutil.rmtree(self._folder / "var" / "state", ignore_errors=True)
        settings = own / "federation.toml"
        settings.write_text(
            SETTINGS.format(
                rounds=ROUNDS, timeout_s=TIMEOUT_S, devices=DEVICES, port=port, pki=made.app / "pki"
            )
        )
        superlink, gate, node = made.commands(SUPERNODE)
        server = SERVER.format(
            app=made.app, superlink=superlink, port=made.ports[0], out=own / "out", settings=settings
        )
        flower = environment(self._folder / "flwr")
        return [
            Victim("superlink", ["bash", "-c", server], flower),
            Victim("gate", ["bash", "-c", f"cd {made.app}\nexec env {gate}"], flower),
            # As its service does; a SuperLink turns its key away for a while after a kill.
            Victim(
                SUPERNODE,
                ["bash", "-c", f"cd {made.app}\nwhile true; do {node}\nsleep 2; done"],
                environment(self._folder / "node"),
            ),
            *(
                Victim(name, self._fleet.device(number, own / f"state-{name}", "--log-level=debug"))
                for number, name in enumerate(AT_GATEWAY, start=1)
            ),
        ]


def run(mixed: Mixed, folder: Path, seed: int, kills: int, spared: Sequence[str]) -> Found:
    """A run with at most so many kills."""
    folder.mkdir()
    began_s = time.monotonic()
    victims = mixed.victims(folder)
    done = disturbed(folder, victims, seed, kills, 1.0, spared, LONGEST_GAP_S)
    return Found(done, time.monotonic() - began_s, "")


def lost_or_twice(out: Path) -> list[str]:
    """What of an account is not right although devices may be dropped: each part of each round has one end."""
    outcomes = {name: count for name, count in summary(out)["outcomes"].items() if count}
    found = [] if sum(outcomes.values()) == ROUNDS * DEVICES else [f"outcomes: {outcomes}"]
    return found + ([f"outcomes: {outcomes}"] if outcomes.keys() - {"done", "dropped"} else [])


def main() -> None:
    """Kill, and write the page or print it; exit code 1 where something is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=KILLS, help="of each run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mixed-") as scratch:
        folder = Path(scratch)
        (folder / "fleet").mkdir()
        mixed = Mixed(folder / "fleet")
        run(mixed, folder / "whole", 0, 0, ())
        print("whole", flush=True)
        spared = run(mixed, folder / "spared", 9, options.kills, (SUPERNODE,))
        print(spared, flush=True)
        wrong = counted_wrongly(folder / "spared" / "out", ROUNDS, DEVICES)
        models = [(folder / each / "out" / "model.safetensors").read_bytes() for each in ("whole", "spared")]
        wrong += [] if models[0] == models[1] else ["the model is another one"]
        known = [Found(spared.kills, spared.seconds, "; ".join(wrong))]
        every = run(mixed, folder / "every", 2, options.kills, ())
        out = folder / "every" / "out"
        known.append(Found(every.kills, every.seconds, "; ".join(lost_or_twice(out))))
        text = page(known, {name: count for name, count in summary(out)["outcomes"].items() if count})
    if options.folder is None:
        print(text)
    else:
        write_atomically(options.folder / "chaos-mixed.md", text.encode())
    raise SystemExit(any(each.wrong for each in known))


def page(known: Sequence[Found], outcomes: dict[str, int]) -> str:
    """The page, in Markdown."""
    said = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    names = ("the SuperNode is spared", "all are killed")
    ends = ("the same", f"each part of each round has one end: {said}")
    runs = [
        [name, f"{found.seconds:.0f} s", str(len(found.kills)), found.wrong or end]
        for name, found, end in zip(names, known, ends, strict=True)
    ]
    each = [
        [name, f"{kill.after_s:.1f} s", kill.victim, kill.hit]
        for name, found in zip(names, known, strict=True)
        for kill in found.kills
    ]
    settings = SETTINGS.format(rounds=ROUNDS, timeout_s=TIMEOUT_S, devices=DEVICES, port=8_444, pki="pki")
    return (
        INTRODUCTION.format(when=when(), cores=os.cpu_count(), gap=LONGEST_GAP_S, settings=settings)
        + table(["run", "it took", "kills", "in the end"], runs)
        + "\n\n"
        + table(["run", "killed at", "victim", "where it was"], each)
        + "\n"
    )


INTRODUCTION = """# Chaos with a SuperLink

Written by `make bench-chaos-mixed` ({when}, {cores} cores shared with other work). A SuperLink, whose run is
coordinator and gateway, the gate before it, a SuperNode and two gateway devices, all with keys, train `digits` on
loopback. As in [chaos](chaos.md), one of them after the other is killed by SIGKILL, with all that it has started, at
moments drawn by the clock, at most {gap:g} s after the last start, and started again: the SuperLink with its database,
and then `flwr run` as an operator would. *The same*: the model is that of a run that was left alone, byte for byte, and
every device's update is counted once in every round. Where the SuperNode is killed too, the message that it had taken
is lost, and the round ends without it.

```toml
{settings}```

"""


if __name__ == "__main__":
    main()
