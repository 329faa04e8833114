"""Peers: what other tools make of the same trained models, and ours beside them. One file a peer.

Each has `measured(model, central)`: rows, dataclasses of plain values, the peer's and ours alike.
"""
