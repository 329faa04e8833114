"""Native coder: C11 sources, their build and their bindings. Internal to the codec, exports nothing."""

__all__: list[str] = []
