"""A Ray cluster of two hosts, of which one is cut off in mid-run: two network namespaces, joined by a virtual cable.

    python tests/benchmarks/ray_hosts.py [RESULTS]

Runs digits on the cluster and in one process, takes the cable away in round 3 of the former, and compares the models.
Needs root and `ip netns`; elsewhere it says so and exits with code 77. Prints a report, and writes it to
RESULTS/ray-hosts.md where that is given.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

HEAD, OTHER = "10.77.0.1", "10.77.0.2"
A, B = "slimfleet-a", "slimfleet-b"
COMMAND = [
    sys.executable,
    "-m",
    "slimfleet.simulations.cli",
    "digits",
    "--rounds",
    "5",
    "--set",
    "fleet.dropout=0.3",
]
RAY = [
    sys.executable,
    "-m",
    "ray.scripts.scripts",
    "start",
    "--block",
    "--num-cpus=1",
    "--disable-usage-stats",
]
NETWORK = [
    f"ip netns add {A}",
    f"ip netns add {B}",
    f"ip link add slim-a netns {A} type veth peer name slim-b netns {B}",
    f"ip -n {A} addr add {HEAD}/24 dev slim-a",
    f"ip -n {B} addr add {OTHER}/24 dev slim-b",
    *(
        f"ip -n {space} link set {link} up"
        for space, link in ((A, "lo"), (B, "lo"), (A, "slim-a"), (B, "slim-b"))
    ),
]
SKIPPED = 77
LONGEST_S = 900.0


def there(space: str, command: list[str]) -> list[str]:
    """`command` in a network namespace."""
    return ["ip", "netns", "exec", space, *command]


def can_run() -> str:
    """Why it cannot run here; empty where it can."""
    if os.geteuid() != 0:
        return "it needs root"
    try:
        subprocess.run(["ip", "netns", "add", f"{A}-try"], check=True, capture_output=True)
        subprocess.run(["ip", "netns", "del", f"{A}-try"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces do not work here: {error}"
    return ""


def started(stack: ExitStack, space: str, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process in a namespace, with all that it starts; ended with the stack."""
    with log.open("wb") as file:
        process = subprocess.Popen(there(space, command), stdout=file, stderr=file, start_new_session=True)

    def end() -> None:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            for pid in in_namespace(space):
                os.kill(pid, sent)
            time.sleep(2.0)
        process.wait()

    stack.callback(end)
    return process


def in_namespace(space: str) -> list[int]:
    """Processes of a namespace, which are all of ours."""
    listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def until(found, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for something to be true."""
    end = time.monotonic() + LONGEST_S
    while not found():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"it did not come:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def measured(folder: Path) -> list[str]:
    """Lines of the report."""
    with ExitStack() as stack:
        for name in (A, B):
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True)
        for line in NETWORK:
            subprocess.run(line.split(), check=True)
        quick = '{"health_check_period_ms":1000,"health_check_failure_threshold":5,"health_check_timeout_ms":2000}'
        head = [
            *("--head", f"--node-ip-address={HEAD}", "--port=6379", "--include-dashboard=false"),
            *(f"--system-config={quick}", f"--temp-dir={folder}/a"),
        ]
        process = started(stack, A, RAY + head, folder / "head.log")
        until(
            lambda: b"Ray runtime started" in (folder / "head.log").read_bytes(), process, folder / "head.log"
        )
        other = [f"--address={HEAD}:6379", f"--node-ip-address={OTHER}", f"--temp-dir={folder}/b"]
        process = started(stack, B, RAY + other, folder / "other.log")
        until(
            lambda: b"Ray runtime started" in (folder / "other.log").read_bytes(),
            process,
            folder / "other.log",
        )

        out = folder / "cluster"
        run = [*COMMAND, "--ray-address", f"{HEAD}:6379", "--out", str(out), "--verbose"]
        process = started(stack, A, run, folder / "run.log")
        until(lambda: list(out.glob("checkpoint/round-*2*")), process, folder / "run.log")
        workers = [pid for pid in in_namespace(B) if b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        subprocess.run(["ip", "-n", B, "link", "set", "slim-b", "down"], check=True)
        cut_s = time.monotonic()
        rounds = len(list(out.glob("checkpoint/round-*")))
        until(lambda: (out / "summary.json").exists(), process, folder / "run.log")
        took_s = time.monotonic() - cut_s
        process.wait(timeout=60)
    subprocess.run([*COMMAND, "--quiet", "--out", str(folder / "here")], check=True)
    models = [
        sha256((folder / each / "model.safetensors").read_bytes()).hexdigest()[:16]
        for each in ("cluster", "here")
    ]
    verdict = "the same" if models[0] == models[1] else "DIFFERENT"
    return [
        f"workers on the second host when it was cut off: {len(workers)}",
        f"checkpoints at that moment: {rounds}; from then to the end of the run: {took_s:.0f} s",
        f"exit code of the run: {process.returncode}",
        f"model on the cluster {models[0]}, in one process {models[1]}: {verdict}",
    ]


def main() -> None:
    """Measure, print, write."""
    if reason := can_run():
        print(f"##### NOT RUN: {reason} #####", file=sys.stderr)
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory(prefix="slim-", dir="/tmp") as folder:
        lines = measured(Path(folder))
    print("\n".join(lines))
    if len(sys.argv) > 1:
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        text = "\n".join(f"    {line}" for line in lines)
        page = f"# Two hosts on Ray, one cut off\n\n`make bench-ray-hosts`, {date}:\n\n{text}\n"
        (Path(sys.argv[1]) / "ray-hosts.md").write_text(page)
    sys.exit(any("DIFFERENT" in line for line in lines))


if __name__ == "__main__":
    main()
