"""Commands of `slimfleet-device`, apart from those in its `cli`."""

__all__: list[str] = []
