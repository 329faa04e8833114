"""Operator mode: what looks at every operator that torch computes inside it."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["OperatorMode"]


class OperatorMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that leaves torch's compiler alone: its import takes 70 MB and a second, to keep it from looking
    into a mode, and slimfleet compiles nothing."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
