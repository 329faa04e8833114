"""A second decoder of payloads, in plain Python, written from docs/wire-format.md alone and with its names.

It shows that the page is complete. Nothing in it is fast, and it checks no more than its values depend on.
"""
