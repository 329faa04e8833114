"""What was found out about one model, as it goes from its process to the page."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """Numbers by name, and one line for each stage that failed. A number that is absent was not reached."""

    name: str
    numbers: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Stage -> type and first line of the error, or which bound was reached."""
    whole: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> types of the layers that stay whole for it, one entry a layer."""

    @property
    def share(self) -> float | None:
        """Of the parameters: left at half width."""
        return self._ratio("half_parameters", "parameters")

    @property
    def peer_share(self) -> float | None:
        """Of the parameters: left by torch-pruning."""
        return self._ratio("peer_parameters", "parameters")

    @property
    def flops_ratio(self) -> float | None:
        """FLOPs as counted over FLOPs by hand."""
        return self._ratio("flops", "hand_flops")

    def line(self) -> str:
        """For the terminal."""
        shares = f"half {percent(self.share)}, torch-pruning {percent(self.peer_share)}"
        rest = f"FLOPs {times(self.flops_ratio)}, discovery {self.numbers.get('discovery_s', float('nan')):.1f} s"
        failed = "; ".join(f"{stage}: {line}" for stage, line in self.failures.items())
        return f"{self.name}: {shares}, {rest}" + (f" [{failed}]" if failed else "")

    def _ratio(self, above: str, below: str) -> float | None:
        if above not in self.numbers or not self.numbers.get(below):
            return None
        return self.numbers[above] / self.numbers[below]


def percent(share: float | None) -> str:
    """A share for people; a dash where there is none."""
    return "–" if share is None else f"{share:.1%}"


def times(ratio: float | None) -> str:
    """A ratio for people; a dash where there is none."""
    return "–" if ratio is None else f"{ratio:.2f}x"
