"""Output of `slimfleet-device`: tables for people, TOML for files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Group
from rich.markup import escape

from slimfleet.client.tables import table, titled
from slimfleet.compression import DeviceProfile

if TYPE_CHECKING:  # they load torch
    from slimfleet.client.anatomy import AtWidth
    from slimfleet.compression.pruning.blueprint import Blueprint

NAME_WIDTH = 46
"""Characters of a group's name that are shown, the last ones: a line holds 80."""

MOST_NAMES = 6
"""Names in a list before the rest is only counted."""


def groups_table(name: str, architecture: Blueprint) -> Group:
    """The channel groups of a model, a line each."""
    found = table("group", numbers=("channels", "least"))
    for group in architecture.groups:
        found.add_row(escape(_ending(group.name)), f"{group.size:,}", f"{group.min_channels:,}")
    return titled(f"What shrinks in the model of {name}", found)


def reach_text(architecture: Blueprint) -> str:
    """The tensors that each group reaches into, a line each."""
    from slimfleet.client.anatomy import tensors_of_group

    lines = [
        line
        for group in architecture.groups
        for line in (f"{group.name} reaches into", *(f"  {tensor}" for tensor in tensors_of_group(group)))
    ]
    return "\n".join(lines) + "\n"


def _ending(name: str) -> str:
    """A name, or the end of a long one, which tells layers apart."""
    return name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"


def whole_text(architecture: Blueprint, verbose: bool = False) -> str:
    """The tensors that do not shrink, and why; with `verbose` all of them."""
    from slimfleet.client.anatomy import whole_tensors

    most = None if verbose else MOST_NAMES
    lines = [f"Whole at every width: {_listed(whole_tensors(architecture), most)}"]
    reasons: dict[str, list[str]] = {}
    for left in architecture.whole:
        reasons.setdefault(left.reason, []).append(left.name or "the model itself")
    lines += [f"  channels of {_listed(names, most)}: {reason}" for reason, names in reasons.items()]
    if not architecture.groups:
        lines.append("No channel can be removed: every width costs the same.")
    return "\n".join(lines) + "\n"


def _listed(names: Sequence[str], most: int | None) -> str:
    shown = ", ".join(names[:most]) or "nothing"
    return shown if most is None or len(names) <= most else f"{shown} and {len(names) - most} more"


def widths_table(rows: Sequence[AtWidth], runtime: str, batch_size: int) -> Group:
    """Channels, parameters, work and memory at each width."""
    found = table(numbers=("width", "channels", "parameters", "MFLOP", "activations kB", "peak MB"))
    for row in rows:
        found.add_row(
            f"{row.width:g}",
            f"{row.channels:,}",
            f"{row.work.parameters:,}",
            _short(row.work.flops_per_example / 1e6),
            _short(row.work.activation_bytes_per_example / 1e3),
            f"{row.peak_bytes / 1e6:,.0f}",
        )
    title = f"Training it ({runtime} runtime, batches of {batch_size}; MFLOP and activations per example)"
    return titled(title, found)


def _short(value: float) -> str:
    """Three digits, never as a power of ten where there are more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def toml_of(profile: DeviceProfile) -> str:
    """A profile as lines of TOML; what is None is left out."""
    values = {name: value for name, value in asdict(profile).items() if value is not None}
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
