"""Memory between the steps of training."""

import resource
import subprocess
import sys

import pytest

SCRIPT = """
import resource

import torch

from slimfleet.client.cohort.memory import keep_freed_memory


def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.zeros(2**21) for _ in range(8)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


print(min(faults() for _ in range(5)))
keep_freed_memory()
print(min(faults() for _ in range(5)))
"""
PAGES = 8 * 2**23 // resource.getpagesize()
"""That a step writes to."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_step_uses_the_memory_of_the_one_before_again():
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    as_it_is, kept = map(int, run.stdout.split())
    assert as_it_is > PAGES / 2
    assert kept < PAGES / 100
