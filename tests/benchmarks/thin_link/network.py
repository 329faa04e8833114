"""Two network namespaces and a thin link between them: tbf limits it, nftables loses packets."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

SERVER, DEVICE = "slimfleet-s", "slimfleet-d"
SERVER_ADDRESS, DEVICE_ADDRESS = "10.78.0.1", "10.78.0.2"
LINK = "thin"
"""Name of either end of the cable."""

RATE = "1mbit"
LOST_PERCENT = 10
PORT = 8_443

SHAPE = f"tc qdisc add dev {LINK} root tbf rate {RATE} burst 2kb latency 400ms"
"""The burst is that of one packet, so that a large segment is cut into packets before it is counted."""

RULES = f"""table inet thin {{
  chain in {{
    type filter hook input priority 0;
    iifname "{LINK}" counter
    iifname "{LINK}" numgen random mod 100 < {LOST_PERCENT} counter drop
  }}
  chain cut {{
    type filter hook input priority 1;
  }}
}}
"""


def cannot_run() -> str:
    """Why there can be no thin link here; empty where there can."""
    if os.geteuid() != 0:
        return "it needs root"
    try:
        with namespaces():
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        return f"a thin link cannot be made here: {error} {said.decode(errors='replace').strip()}"
    return ""


@contextmanager
def namespaces() -> Iterator[None]:
    """Server and device, joined by the link."""
    with ExitStack() as stack:
        for space in (SERVER, DEVICE):
            _do(f"ip netns add {space}")
            stack.callback(subprocess.run, ["ip", "netns", "del", space], check=False, capture_output=True)
        _do(f"ip link add {LINK} netns {SERVER} type veth peer name {LINK} netns {DEVICE}")
        for space, address in ((SERVER, SERVER_ADDRESS), (DEVICE, DEVICE_ADDRESS)):
            _do(f"ip -n {space} addr add {address}/24 dev {LINK}")
            for link in ("lo", LINK):
                _do(f"ip -n {space} link set {link} up")
            _do(f"ip netns exec {space} {SHAPE}")
            subprocess.run(
                there(space, ["nft", "-f", "-"]), input=RULES.encode(), check=True, capture_output=True
            )
        yield


def there(space: str, command: Sequence[str]) -> list[str]:
    """`command` in a namespace."""
    return ["ip", "netns", "exec", space, *command]


def sent_bytes() -> int:
    """What the device has put on the link so far, all headers and repeated packets included."""
    said = subprocess.run(
        ["ip", "-n", DEVICE, "-s", "-j", "link", "show", "dev", LINK], check=True, capture_output=True
    )
    count: int = json.loads(said.stdout)[0]["stats64"]["tx"]["bytes"]
    return count


def lost_share() -> float:
    """Packets lost, of those that came to either end."""
    came = lost = 0
    for space in (SERVER, DEVICE):
        said = subprocess.run(
            there(space, ["nft", "-j", "list", "chain", "inet", "thin", "in"]),
            check=True,
            capture_output=True,
        )
        counts = [
            each["counter"]["packets"]
            for rule in json.loads(said.stdout)["nftables"]
            for each in rule.get("rule", {}).get("expr", ())
            if "counter" in each
        ]
        came, lost = came + counts[0], lost + counts[1]
    return lost / came


def reset(lasts_s: float) -> None:
    """For so long the server's machine answers every packet to the gateway with a reset."""
    _do(f"ip netns exec {SERVER} nft add rule inet thin cut tcp dport {PORT} reject with tcp reset")
    time.sleep(lasts_s)
    _do(f"ip netns exec {SERVER} nft flush chain inet thin cut")


def unplug(lasts_s: float) -> None:
    """The link is down for so long."""
    _do(f"ip -n {DEVICE} link set {LINK} down")
    time.sleep(lasts_s)
    _do(f"ip -n {DEVICE} link set {LINK} up")


def congestion_control() -> str:
    """TCP's, which decides how fast a lossy link is."""
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def _do(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)
