"""Receiving: answers, checked before anything of them is used."""

__all__: list[str] = []
