"""Transport: how messages travel between the coordinator and devices."""

__all__: list[str] = []
