"""Evaluation: what a model costs, how good it is, which part of it matters, how far a change may go."""
