"""Peers: what other tools make of the same trained models, and ours beside them. One file a peer.

Each has `compared(case, seed, trained_folder, kept_folder)`: rows, measured once and kept on disk.
"""
