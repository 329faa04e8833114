"""A small update with everything in it: matrices, vectors, batch-norm statistics, a counter."""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from slimfleet.compression import cli
from slimfleet.compression.codec import operating_point
from slimfleet.compression.codec.native import library
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


@pytest.fixture
def update() -> Tensors:
    rng = np.random.default_rng(11)
    return {
        "conv.weight": rng.laplace(0, 0.01, (8, 1, 3, 3)).astype(np.float32),
        "conv.bias": rng.laplace(0, 0.01, 8).astype(np.float32),
        "norm.weight": rng.laplace(0, 0.003, 8).astype(np.float32),
        "norm.running_mean": rng.normal(0, 0.1, 8).astype(np.float32),
        "norm.running_var": rng.normal(0, 0.1, 8).astype(np.float32),
        "norm.num_batches_tracked": np.array(12, np.int64),
        "head.weight": rng.laplace(0, 0.002, (40, 72)).astype(np.float32),
        "head.bias": rng.laplace(0, 0.004, 40).astype(np.float32),
    }


@pytest.fixture
def schema(update: Tensors) -> ModelSchema:
    return ModelSchema.of(update, {name for name in update if name.endswith(("weight", "bias"))})


@pytest.fixture
def without_native_coder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it, and this process is as one that was installed without the native coder."""

    def leave_out() -> None:
        monkeypatch.setenv("SLIMFLEET_PORTABLE", "1")
        monkeypatch.delenv("SLIMFLEET_NATIVE_LIBRARY", raising=False)
        library.load.cache_clear()

    yield leave_out
    monkeypatch.undo()
    library.load.cache_clear()


@pytest.fixture
def compress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: exit code, stdout, stderr.

    Speeds are measured for a moment only: `test_codec_rate.py` measures them for as long as a person waits.
    """
    monkeypatch.setattr(operating_point, "_TURN_S", 1e-3)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slimfleet-compress", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run
