"""Who watches: observers of the coordinator's events."""
