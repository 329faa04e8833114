"""Cohort: rounds of several devices at once, in virtual time. Those whose plans share a shape are trained together."""

__all__: list[str] = []
