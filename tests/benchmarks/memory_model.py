"""Predicted against measured peak memory of real rounds, with a profile that `slimfleet-device calibrate` wrote.

    python tests/benchmarks/memory_model.py

The device calibrates itself, and then does rounds of plans that the fit has not seen, each in a process of its own,
all inside a control group of 512 MB (v1 or v2, as root). Where no group can be made a warning says so: then nothing
limits the processes. A plan that is predicted not to fit must be refused before it trains, not killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from slimfleet.client.calibration.point import Peak, Point, measured_peak
from slimfleet.compression import Evaluation, Examples, SlimfleetError
from slimfleet.compression.edge.input_files import read_profile

LIMIT_BYTES = 512_000_000
WIDTHS = (0.25, 0.5, 0.75, 1.0)
BATCHES = (12, 64, 160)
TOO_LARGE = (1.0, 2_000)
MB = 1e6
GROUPS = Path("/sys/fs/cgroup")
NAME = "slimfleet-memory-model"


class Pictures:
    """A ~100k-parameter CNN on noise, as large as Fashion-MNIST's pictures."""

    name = "pictures"

    def __init__(self, partitions: int, seed: int) -> None:
        self.partitions = partitions

    def build_model(self) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 49, 56), nn.ReLU(), nn.Linear(56, 10)),
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 1, 28, 28),)

    def load(self, partition: int) -> Examples:
        noise = torch.Generator().manual_seed(partition)
        return Examples(torch.randn(2_000, 1, 28, 28, generator=noise), torch.arange(2_000) % 10)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        raise NotImplementedError


@contextlib.contextmanager
def limited() -> Iterator[Path | None]:
    """A group of 512 MB, removed at the end; None, with a loud reason, where there can be none."""
    v1 = (GROUPS / "memory").is_dir()
    group = (GROUPS / "memory" if v1 else GROUPS) / NAME
    limit = group / ("memory.limit_in_bytes" if v1 else "memory.max")
    try:
        group.mkdir(exist_ok=True)
        limit.write_text(str(LIMIT_BYTES))
    except OSError as error:
        print(f"NO MEMORY LIMIT: {limit}: {error.strerror}; run it as root", file=sys.stderr)
        yield None
        return
    print(f"Limit: {int(limit.read_text()) / MB:.0f} MB ({'cgroup v1' if v1 else 'cgroup v2'})")
    try:
        yield group
    finally:
        group.rmdir()


def inside(group: Path | None, command: Sequence[str]) -> list[str]:
    """`command`, in the group from its first page on."""
    if group is None:
        return list(command)
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", *command]


def kills(group: Path | None) -> str:
    """How often the kernel has killed a process of the group."""
    if group is None:
        return "unknown"
    file = next(path for path in (group / "memory.oom_control", group / "memory.events") if path.exists())
    return next(line.split()[1] for line in file.read_text().splitlines() if line.startswith("oom_kill "))


def calibrated(group: Path | None, folder: Path) -> Path:
    """The profile that the command writes."""
    profile = folder / "profile.json"
    command = [sys.executable, "-m", "slimfleet.client.cli", "calibrate", "memory_model:Pictures"]
    options = [
        "--import-from",
        str(Path(__file__).parent),
        "--meter",
        "none",
        "--idle-w",
        "2",
        "--train-w",
        "3",
    ]
    where = ["--threads", "1", "--seconds", "3", "--out", str(profile)]
    subprocess.run(
        inside(group, [*command, *options, *where]), check=True, env=os.environ | {"COLUMNS": "100"}
    )
    return profile


def main() -> None:
    """Calibrate, do the rounds, print."""
    with limited() as group, tempfile.TemporaryDirectory() as folder:
        profile = calibrated(group, Path(folder))
        print(json.dumps({k: v for k, v in vars_of(profile).items() if k.startswith("runtime")}))
        point = {
            "task": "memory_model:Pictures",
            "options": {},
            "import_from": (str(Path(__file__).parent),),
            "node_config": {
                "partition-id": 0, "profile": str(profile), "state": f"{folder}/state", "threads": 1, "meter": "none"
            },
        }  # fmt: skip

        def peak_of(width: float, batch: int) -> Peak:
            plan = Point(**point, width=width, batch_size=batch)
            return measured_peak(plan, lambda command: inside(group, command))

        print("width batch  activations MB  peak MB  predicted MB   error")
        errors = []
        for width in WIDTHS:
            for batch in BATCHES:
                peak = peak_of(width, batch)
                errors.append(peak.predicted_bytes / peak.peak_bytes - 1)
                print(
                    f"{width:5} {batch:5} {peak.activation_bytes / MB:15.1f} {peak.peak_bytes / MB:8.1f} "
                    f"{peak.predicted_bytes / MB:13.1f} {errors[-1]:7.1%}",
                    flush=True,
                )
        print(f"{len(errors)} plans, predicted {min(errors):+.1%} to {max(errors):+.1%} of the measured peak")
        try:
            peak_of(*TOO_LARGE)
            print(f"width {TOO_LARGE[0]}, batch {TOO_LARGE[1]}: NOT REFUSED")
        except SlimfleetError as error:
            print(error)
        print(f"killed by the kernel for want of memory: {kills(group)}")


def vars_of(profile: Path) -> dict[str, object]:
    """The fields of a profile, read as a device reads them."""
    found = read_profile(profile)
    return {name: getattr(found, name) for name in type(found).__slots__}


if __name__ == "__main__":
    main()
