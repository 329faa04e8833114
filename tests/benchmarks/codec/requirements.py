"""Targets of the codec, compared with what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from experiment import NNCODEC, OURS, OURS_SIDE, TARGETS, Case
from ours import FirstCall

SIZE = {"small": 1.00, "fast": 1.05}
AIM = 0.95
ENCODE = {"small": 3.0, "fast": 8.0}
DECODE = {"small": 0.2, "fast": 1.0}
FIRST_CALL_S = 0.050
SIDE_GAIN = 0.05
ALL_ZERO_BYTES = 48


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target: `met` is None where nothing was measured."""

    requirement: str
    measured: str
    met: bool | None

    def line(self) -> str:
        """As a list item."""
        word = {True: "Met", False: "Missed", None: "Not measured"}[self.met]
        return f"- {self.requirement}: {self.measured}. **{word}.**"


def verdicts(cases: Sequence[Case], first: FirstCall, all_zero: int) -> list[Verdict]:
    """All of them, the worst case of each."""
    found = []
    for preset, name in OURS.items():
        most = SIZE[preset]
        sizes = _ratios(cases, name, "bytes")
        found.append(_worst(f"{preset}: at most {most:.2f}x the bytes of NNCodec", sizes, most, highest=True))
        if preset == "small":
            found.append(_worst(f"{preset}: further target {AIM:.2f}x", sizes, AIM, highest=True))
        for what, least in (("encode", ENCODE[preset]), ("decode", DECODE[preset])):
            requirement = f"{preset}: {what} at least {least:g}x as fast"
            found.append(_worst(requirement, _ratios(cases, name, what), least, highest=False))
    found.append(
        Verdict(
            f"the first call costs less than {1e3 * FIRST_CALL_S:.0f} ms more than the second",
            f"{1e3 * first.extra:.1f} ms",
            first.extra < FIRST_CALL_S,
        )
    )
    gains = [(c, t, c.ratio(t, OURS_SIDE, OURS["small"])) for c in cases for t in TARGETS if t == 0.3]
    requirement = f"side information saves at least {SIDE_GAIN:.0%} at NMSE 0.3 (ratio to small without it)"
    found.append(_worst(requirement, gains, 1 - SIDE_GAIN, highest=True))
    zero = f"{all_zero} bytes"
    found.append(
        Verdict(
            f"all-zero update of the small CNN at most {ALL_ZERO_BYTES} bytes",
            zero,
            all_zero <= ALL_ZERO_BYTES,
        )
    )
    return found


def _ratios(cases: Sequence[Case], name: str, what: str) -> list[tuple[Case, float, float | None]]:
    return [(case, target, case.ratio(target, name, NNCODEC, what)) for case in cases for target in TARGETS]


def _worst(
    requirement: str, ratios: Iterable[tuple[Case, float, float | None]], limit: float, *, highest: bool
) -> Verdict:
    known = [(ratio, case, target) for case, target, ratio in ratios if ratio is not None]
    if not known:
        return Verdict(requirement, "no measurement", None)
    ratio, case, target = (max if highest else min)(known, key=lambda entry: entry[0])
    missed = sum(r > limit if highest else r < limit for r, _, _ in known)
    where = f"{case.update}, {case.scope}, NMSE {target:g}"
    measured = f"worst {ratio:.3f}x ({where})" + (f", missed in {missed} of {len(known)}" if missed else "")
    return Verdict(requirement, measured, not missed)
