"""Trained models: each case and seed is trained once, and kept."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from slimfleet.compression.files import write_atomically
from slimfleet.compression.model.central import CentralTask, Progress, central_task
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.tuning import tune

from .cases import Case


def trained(case: Case, seed: int, folder: Path, progress: Progress) -> tuple[nn.Module, CentralTask]:
    """The trained model of a case in evaluation mode, read from `folder` or trained and put there, and its data."""
    central = central_task(case.loaded(), seed, progress)
    torch.manual_seed(seed)
    model = case.loaded().build_model()
    file = folder / f"{case.name}-{seed}.pt"
    about = file.with_suffix(".json")
    training = asdict(case.training)
    if about.exists() and json.loads(about.read_text())["training"].items() <= training.items():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval(), central
    began = time.process_time()
    slim, _ = tune(SlimModel(model), central, case.training, f"training {case.name} {seed}")
    fields = {
        "training": training,
        "cpu_s": time.process_time() - began,
        "test": central.tested(slim.model).accuracy,
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(slim.model.state_dict(), file)
    write_atomically(about, json.dumps(fields, indent=1).encode())
    return slim.model.eval(), central
