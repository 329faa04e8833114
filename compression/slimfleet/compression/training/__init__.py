"""Training: batches and steps, as a device takes them in a round and fine-tuning in the model toolbox. Needs torch."""

from slimfleet.compression.training.batches import has_single, prepared, shuffled, shuffled_places
from slimfleet.compression.training.sgd import Sgd
from slimfleet.compression.training.step import train_step

__all__ = ["Sgd", "has_single", "prepared", "shuffled", "shuffled_places", "train_step"]
