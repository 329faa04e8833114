"""Downlink: versions of the global model, whole or as changes. Internal to the codec, exports nothing."""

__all__: list[str] = []
