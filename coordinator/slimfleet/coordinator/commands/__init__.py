"""Commands of `slimfleet-coordinator`, apart from those in its `cli`."""

__all__: list[str] = []
