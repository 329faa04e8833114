"""Commands of `slimfleet-device`, one file each."""
