"""The digits, with the moment of every training step written to the file that the variable MARKS names."""

from __future__ import annotations

import os
import time
from pathlib import Path

from torch import Tensor

from slimfleet.client.tasks import Digits


class ClockedDigits(Digits):
    """As `Digits`; a mark is seconds since 1970, one a line."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        if (marks := os.environ.get("MARKS")) is not None:
            with Path(marks).open("a") as file:
                file.write(f"{time.time():.6f}\n")
        return super().loss(outputs, targets)
