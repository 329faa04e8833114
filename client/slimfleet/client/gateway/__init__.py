"""Gateway: a device that stays resident and calls its coordinator's gateway for work.

Nothing here imports torch before the first plan has come.
"""

__all__: list[str] = []
