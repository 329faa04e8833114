"""Input files: what a person names (TOML settings, device profiles), read or refused in one line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.errors import BadInput
from slimfleet.compression.types import DeviceProfile


def read_toml(path: Path, source: str) -> dict[str, Any]:
    """The tables of a file that messages call `source`. Raises BadInput where it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {source}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{source} is not text in UTF-8 (byte {error.start})") from error
    except ValueError as error:
        raise BadInput(f"{source} is not TOML: {error}") from error
    except RecursionError as error:
        raise BadInput(f"{source} is nested too deep") from error


def read_profiles(path: Path) -> list[DeviceProfile]:
    """The device profile in a file, or the list of them. Raises BadInput naming the file and what is wrong in it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise BadInput(
            f"cannot read the profile {path}: {error.strerror}; slimfleet-device profile --json writes one"
        ) from error
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
