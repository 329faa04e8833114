"""Puts the native coder into wheels and editable installs; hatchling calls it, see `[tool.hatch.build]`."""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

NATIVE = "compression/slimfleet/compression/codec/native"


class NativeCoder(BuildHookInterface):
    """Compiles the C sources in place. The library has no Python in it, so one wheel fits every Python 3."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, or with SLIMFLEET_PORTABLE=1 leave a pure wheel; without a compiler say what to do and stop."""
        build = runpy.run_path(str(Path(self.root) / NATIVE / "build.py"))
        if os.environ.get(build["PORTABLE_VARIABLE"], "0") not in ("", "0"):
            build["BESIDE"].unlink(missing_ok=True)
            return
        try:
            build["compile_library"](build["BESIDE"], build["compiler"]())
        except build["BuildError"] as error:
            sys.exit(f"\nerror: {error}\n")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform()}"
        # Git does not know the library, and hatchling takes what git knows.
        build_data["artifacts"].append(f"{NATIVE}/{build['LIBRARY']}")


def platform() -> str:
    """The tag of wheels that are built and used here: on Linux the one that promises nothing about other machines."""
    tags = list(platform_tags())
    return next((tag for tag in reversed(tags) if tag.startswith("linux_")), tags[0])
