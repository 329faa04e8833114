"""Flower app of a device that can be told to fall silent; the benchmark puts it in the place of `fleet_device.py`.

While the file that the variable SILENCE names says `mute`, the device answers nothing, though its SuperNode stays
connected; while it says `hanging`, it registers, and ends no round. Once the file is gone it answers with an error.
"""

import os
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from slimfleet.client import deployed_client_app

POLL_S = 0.5

honest = deployed_client_app()
app = ClientApp()


@app.query()
def register(message: Message, context: Context) -> Message:
    """Introduces itself, unless it is mute."""
    hang_while("mute")
    return honest(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Does a round, unless it is silent."""
    hang_while("mute", "hanging")
    return honest(message, context)


def hang_while(*kinds: str) -> None:
    """Return at once where the file says nothing of the kind; else hang, and raise RuntimeError at the end."""
    silence = Path(os.environ["SILENCE"])
    if _said(silence) not in kinds:
        return
    while _said(silence) in kinds:
        time.sleep(POLL_S)
    raise RuntimeError("this device was silent")


def _said(silence: Path) -> str:
    try:
        return silence.read_text()
    except FileNotFoundError:
        return ""
