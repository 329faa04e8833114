"""Cohort: the work of many virtual devices in a few messages, done together by a worker."""

__all__: list[str] = []
