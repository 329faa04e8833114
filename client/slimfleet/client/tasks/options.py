"""Options of tasks, checked when a task is made."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from slimfleet.compression.errors import BadInput


def check_options(partitions: object, alpha: object, seed: object) -> None:
    """Raise BadInput unless these are a whole number >= 1, a positive number and a whole number >= 0."""
    check_count("partitions", partitions)
    if not isinstance(alpha, int | float) or not alpha > 0:
        raise BadInput(
            f"alpha is {alpha!r}, it must be a positive number (0.1 is strong label skew, inf is even)"
        )
    check_count("seed", seed, least=0)


def check_count(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise BadInput unless `value` is a whole number from `least`, and up to `most` where that is given."""
    if not isinstance(value, int) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise BadInput(f"{name} is {value!r}, it must be a whole number {bounds}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise BadInput, with the nearest one, unless `value` is one of `choices`."""
    if value in choices:
        return
    near = get_close_matches(str(value), choices, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise BadInput(f"{name} is {value!r}{hint}; there are {', '.join(choices)}")
