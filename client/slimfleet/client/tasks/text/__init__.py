"""Texts of the built-in tasks: their files, and the numbers that stand for their words."""
