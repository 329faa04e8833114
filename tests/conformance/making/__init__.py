"""Making of the conformance vectors, one kind a module; each gives documents and files by name."""
