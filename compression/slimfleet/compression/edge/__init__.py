"""Edge of the program: what command lines, files and configs hold, checked once before anything else uses it."""

__all__: list[str] = []
