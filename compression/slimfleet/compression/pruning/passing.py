"""Passing: the groups that pass a trial together, where all of them do not."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.pruning.removable import UNTRIED, Trial

_Kind = Sequence[ChannelGroup]
"""Groups that are tried together or not at all."""


def passing(
    trial: Trial, groups: Sequence[ChannelGroup], failure: str
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """Those of `groups` that pass together, and why each of the others does not.

    All together fail for the reason `failure`. The blocks of a model mostly fail alike, so that groups whose names
    differ in numbers alone are tried as one; only those of a kind that fails are tried one by one.
    """
    accepted, failed = _searched(trial, [], _kinds(groups), failure)
    failures: dict[str, str] = {}
    for kind, reason in failed:
        accepted, alone = _searched(trial, accepted, [[group] for group in kind], reason)
        failures |= {group.name: reason if why == UNTRIED else why for (group,), why in alone}
    return [group for group in groups if group in accepted], failures


def _kinds(groups: Sequence[ChannelGroup]) -> list[_Kind]:
    kinds: dict[str, list[ChannelGroup]] = defaultdict(list)
    for group in groups:
        kinds[re.sub(r"\d+", "#", group.name)].append(group)
    return list(kinds.values())


def _searched(
    trial: Trial, accepted: Sequence[ChannelGroup], kinds: Sequence[_Kind], failure: str
) -> tuple[list[ChannelGroup], list[tuple[_Kind, str]]]:
    """`accepted` and those of `kinds` that pass beside them, and the others; all together fail."""
    if len(kinds) == 1:
        return list(accepted), [(kinds[0], failure)]
    failed: list[tuple[_Kind, str]] = []
    middle = len(kinds) // 2
    for part in (kinds[:middle], kinds[middle:]):
        together = [*accepted, *(group for kind in part for group in kind)]
        why = trial.failure(together)
        if why is None:
            accepted = together
        else:
            accepted, more = _searched(trial, accepted, part, why)
            failed += more
    return list(accepted), failed
