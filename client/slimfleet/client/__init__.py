"""slimfleet.client"""
