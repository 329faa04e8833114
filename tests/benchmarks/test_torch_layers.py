"""docs/own-task.md tells what becomes of torch's layers, as measured now."""

import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from torch_layers import PAGE, layers, with_table

NO_LAYER = {
    "Module",
    "Container",
    "DataParallel",
    "RNNBase",
    "RNNCellBase",
    "CosineSimilarity",
    "PairwiseDistance",
}
"""Bases, wrappers, and what compares two tensors."""


def test_the_page_has_every_layer_with_its_verdict() -> None:
    """`python tests/benchmarks/torch_layers.py --write` writes the table anew."""
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page) == page
    assert page.count("layers of `torch.nn`") == 1


def test_no_layer_of_torch_is_forgotten() -> None:
    known = layers()
    public = {
        name
        for name in dir(nn)
        if isinstance(kind := getattr(nn, name), type)
        and issubclass(kind, nn.Module)
        and name not in NO_LAYER
    }
    uncalled = {
        name
        for name in public
        if name.startswith("Lazy") or "Loss" in name or name.endswith(("List", "Dict"))
    }
    assert public - uncalled - known.keys() == {"Sequential"}
