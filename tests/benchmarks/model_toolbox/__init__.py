"""Benchmark of the model toolbox: what recipes make of trained models of every task, and what the peers do."""
