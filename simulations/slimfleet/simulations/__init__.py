"""slimfleet.simulations"""
