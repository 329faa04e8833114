"""Memory between the steps of training."""

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import sys

import numpy as np

from slimfleet.client.cohort.memory import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()


def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [np.full(2**21, 1.0, np.float32) for _ in range(8)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults()
print(faults())
"""
PAGES = 8 * 2**23 // resource.getpagesize()
"""That a step writes to."""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_step_uses_the_memory_of_the_one_before_again():
    def faults(*arguments: str) -> int:
        command = [sys.executable, "-c", SCRIPT, *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)

    assert faults() > PAGES / 10  # numpy asks for large pages
    assert faults("keep") < PAGES / 100
