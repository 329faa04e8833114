"""TOML files: read as tables, or refused in one line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from slimfleet.compression.errors import BadInput


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
