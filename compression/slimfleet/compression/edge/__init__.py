"""Command-line and configuration plumbing: what a person gave, checked once, before anything else sees it."""
