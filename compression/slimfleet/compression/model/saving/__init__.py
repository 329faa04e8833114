"""Saving: a model as model.slim, and back; what rebuilds its architecture."""
