"""Recipes: how they are written, applied and searched for."""
