"""slimfleet.coordinator"""
