"""Packing: a model at rest in one file, `model.slim`: tensors by name, each with its coding, checksummed. No torch."""

from slimfleet.compression.packing.codings import Codebook, Coding, Entry, Lossless, OnGrid, ToError, ToRate
from slimfleet.compression.packing.pack import pack_file, unpack_file
from slimfleet.compression.packing.reader import Description, SlimFile
from slimfleet.compression.packing.writer import Summary, write_slim

__all__ = [
    "Codebook",
    "Coding",
    "Description",
    "Entry",
    "Lossless",
    "OnGrid",
    "SlimFile",
    "Summary",
    "ToError",
    "ToRate",
    "pack_file",
    "unpack_file",
    "write_slim",
]
