"""Checkpoints in slim files beside other lossless compressors, and the memory that a large one takes."""
