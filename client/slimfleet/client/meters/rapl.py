"""RAPL: the energy counters of Intel and AMD processors under /sys/class/powercap.

A counter counts microjoules up to `max_energy_range_uj`, and begins again. Packages are summed, with their DRAM, which
is not in them. Cores and uncore are parts of a package; `psys` is the whole platform; `intel-rapl-mmio` shows the
same packages by another way: all are left out, so that nothing counts twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from slimfleet.client.meters.sampled import Sensor, all_known
from slimfleet.client.meters.sysfs import read_number, read_word

__all__ = ["POWERCAP", "find_domains"]

POWERCAP = Path("/sys/class/powercap")

MOST_W = 2_000.0
"""No domain draws more. A counter that fell by less than a wrap-around at this power can explain was reset."""

ERROR = 0.05
BRIDGED_S = 60.0
"""A counter goes on counting while nobody looks; the fastest wraps after minutes."""

Counts = tuple[float, ...]
"""Joules of each domain, by its counter."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One counter."""

    name: str
    folder: Path
    range_j: float
    """Joules at which it begins again."""

    def joules(self) -> float | None:
        """Its count now."""
        return read_number(self.folder / "energy_uj", 1e-6)


def find_domains(root: Path = POWERCAP) -> Sensor[Counts] | None:
    """The packages and their DRAM; None where there is none, or none may be read (most kernels: by root alone)."""
    folders = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
    domains: dict[str, Domain] = {}
    for folder in folders:
        name, within = read_word(folder / "name") or "", folder.name.count(":") > 1
        wanted = name == "dram" if within else name.startswith("package")
        range_j = read_number(folder / "max_energy_range_uj", 1e-6)
        if wanted and range_j:
            label = f"{folder.name.split(':')[1]}/dram" if within else name
            domains.setdefault(label, Domain(label, folder, range_j))
    chosen = list(domains.values())
    if not chosen or _counts(chosen) is None:
        return None
    ranges = tuple(domain.range_j for domain in chosen)
    return Sensor(
        f"rapl {' + '.join(domains)}", partial(_counts, chosen), partial(_counted, ranges), ERROR, BRIDGED_S
    )


def _counts(domains: list[Domain]) -> Counts | None:
    counts = all_known(domain.joules() for domain in domains)
    return None if counts is None else tuple(counts)


def _counted(ranges: Counts, earlier: Counts, later: Counts, seconds: float) -> float | None:
    """Joules between two looks; None where a counter was reset."""
    total = 0.0
    for range_j, before, after in zip(ranges, earlier, later, strict=True):
        joules = after - before if after >= before else after - before + range_j
        if not 0 <= joules <= MOST_W * max(seconds, 1.0):
            return None
        total += joules
    return total
