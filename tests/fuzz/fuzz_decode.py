"""Coverage-guided fuzzing of the decoder with atheris: `make fuzz SECONDS=600`, which see for the environment.

    python tests/fuzz/fuzz_decode.py [libFuzzer's options] [folders or files]

Any exception but PayloadError, and every `Finding`, ends the run and leaves
its input behind. The native coder's library, where there is one, adds its own coverage and sanitisers.
"""

import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["slimfleet"]):
    import cases

    from slimfleet.compression.codec.native import library

SEEDS = cases.seeds()
CHECK_EVERY = 10_000
LIMIT_LEAK_BYTES = 256 << 20


class Leaks:
    """Compares resident memory, every ten thousand runs, with what it was after the first ten thousand."""

    def __init__(self) -> None:
        self.runs = 0
        self.settled = 0

    def watch(self) -> None:
        self.runs += 1
        if self.runs % CHECK_EVERY:
            return
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        self.settled = self.settled or resident
        if resident - self.settled > LIMIT_LEAK_BYTES:
            raise cases.Finding(
                f"{resident - self.settled} bytes more after {self.runs} runs: something leaks"
            )


def mutated(data: bytes, size: int, seed: int) -> bytes:
    """Half of the time by libFuzzer, else by the mutator of the tests with an honest input as the other."""
    rng = random.Random(seed)
    if rng.random() < 0.5:
        return atheris.Mutate(data, size)
    return cases.mutate(data or SEEDS[0], rng.choice(SEEDS), rng)[:size]


def main() -> None:
    native = library.load()
    print(f"native coder: {native._name if native else 'none'}", file=sys.stderr)
    leaks = Leaks()

    def one(data: bytes) -> None:
        cases.check(data)
        leaks.watch()

    # libFuzzer starts itself anew, by this name, to merge folders.
    atheris.Setup([f"{sys.executable} {__file__}", *sys.argv[1:]], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
