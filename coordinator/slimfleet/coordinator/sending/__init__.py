"""Sending: dispatches, and the global model encoded for what each device holds."""

__all__: list[str] = []
