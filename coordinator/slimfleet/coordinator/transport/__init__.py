"""How messages travel between the coordinator and devices."""
