"""Models of the built-in tasks, one architecture a file; torch's generator initialises them."""
