"""The downlink: versions of the global model, whole or as a change of one that a device holds."""
