"""Settings that both federations have in common."""

SETTINGS = """round_timeout_s = 140.0
client = {learning_rate = 0.05}
selection = {policy = "uniform", per_round = 1, min_devices = 1}
planner = {widths = [1.0], local_steps = [4], batch_sizes = [8], nmse = [0.05]}
"""
