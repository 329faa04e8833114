"""Observing: observers of the coordinator's events."""

__all__: list[str] = []
