"""The native coder: C11 sources, what compiles them, and what loads the library they become."""
