"""Profile files: device profiles as JSON, as `slimfleet-device profile --json` prints them."""

from __future__ import annotations

import json
from pathlib import Path

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.errors import BadInput
from slimfleet.compression.types import DeviceProfile


def read_profiles(path: Path) -> list[DeviceProfile]:
    """The device profile in a file, or the list of them. Raises BadInput naming the file and what is wrong in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise BadInput(f"cannot read the profile {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"the profile {path} is not JSON: {error}") from error
    values = content if isinstance(content, list) else [content]
    return [checked(DeviceProfile, each, f"the profile {path}") for each in values]


def read_profile(path: Path) -> DeviceProfile:
    """The one device profile in a file. Raises BadInput naming the file and what is wrong in it."""
    profiles = read_profiles(path)
    if len(profiles) != 1:
        raise BadInput(f"the profile {path} holds {len(profiles)} devices, one is needed")
    return profiles[0]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a finite number")
