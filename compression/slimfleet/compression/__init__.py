"""slimfleet.compression"""
