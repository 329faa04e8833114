"""Device profiles: the table `profiles.csv`, with the source of each figure.

    name, device_class          of the device; a class holds alike devices, for calibration and metrics
    ram_mib                     installed memory
    train_gflops, _lo, _hi      usable float32 convolution training speed: nominal, and its plausible range
    idle_w                      power at rest
    train_w, train_w_kind       power while training: `gross` includes idle (boards, at the plug),
                                `net` is above idle (phones; assumed where the source does not say)
    sustained_w                 what the case can shed for long (phones)
    uplink_mbps, downlink_mbps  megabits per second
    radio                       wifi4, wifi5, wifi, lte, ethernet/wifi, wifi/lte
    radio_j_per_mb_up           joules per 10^6 bytes sent
    radio_j_per_burst           joules to wake the radio and let it sleep again (LTE: a tail of 11.6 s)
    battery_wh                  capacity; 0 on mains
    thermal                     how the device throttles
    *_source                    provenance: M measured and published, A from a paper's abstract, D derived by
                                us, U not verified; U/D and M/D are derived from such figures

The speed columns are the weakest: half of published double-precision HPL, derated for phones by on-device
measurements (FLASH, Yang et al. 2021); hence lo and hi. There is no int8 column: training is float32
everywhere, int8 makes only updates smaller. Board figures: github.com/geerlingguy/sbc-reviews and
top500-benchmark; network quantiles of phones: FedScale (Lai et al. 2022); LTE: Huang et al. 2012, "A close
examination of performance and power characteristics of 4G LTE networks".
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, cast

from slimfleet.compression.types import DeviceProfile

BYTES_PER_S_PER_MBPS = 1e6 / 8
J_PER_WH = 3600.0

LTE_DOWN_SHARE = 0.23
"""Energy of a byte received over one sent: 1.2 / 5.2 J/MB at 13 Mbps down, 6 up (Huang et al.)."""
WIFI_DOWN_SHARE = 0.48
"""Likewise for wifi (137 against 283 mW per Mbps); also taken for ethernet and mixed links."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """One line of the table, in the table's units; see the module's docstring."""

    name: str
    device_class: str
    ram_mib: float
    train_gflops: float
    train_gflops_lo: float
    train_gflops_hi: float
    idle_w: float
    train_w: float
    train_w_kind: Literal["gross", "net"]
    sustained_w: float | None
    uplink_mbps: float
    downlink_mbps: float
    radio: str
    radio_j_per_mb_up: float
    radio_j_per_burst: float
    battery_wh: float
    thermal: str
    compute_source: str
    power_source: str
    network_source: str
    battery_source: str

    @property
    def profile(self) -> DeviceProfile:
        """The row in SI units, training power above idle."""
        up = self.radio_j_per_mb_up / 1e6
        return DeviceProfile(
            name=self.name,
            device_class=self.device_class,
            ram_bytes=round(self.ram_mib * 2**20),
            train_flops_per_s=self.train_gflops * 1e9,
            idle_w=self.idle_w,
            train_w=self.train_w - self.idle_w if self.train_w_kind == "gross" else self.train_w,
            uplink_bytes_per_s=self.uplink_mbps * BYTES_PER_S_PER_MBPS,
            downlink_bytes_per_s=self.downlink_mbps * BYTES_PER_S_PER_MBPS,
            radio_j_per_byte_up=up,
            radio_j_per_byte_down=up * (LTE_DOWN_SHARE if self.radio == "lte" else WIFI_DOWN_SHARE),
            radio_j_per_burst=self.radio_j_per_burst,
            battery_j=self.battery_wh * J_PER_WH or None,
        )


def load_profiles() -> tuple[ProfileRow, ...]:
    """All rows of the table that ships with slimfleet, in its order."""
    text = files("slimfleet.compression").joinpath("profiles.csv").read_text(encoding="utf-8")
    return tuple(_row(values) for values in csv.DictReader(text.splitlines()))


def _row(values: Mapping[str, str]) -> ProfileRow:
    return ProfileRow(
        name=values["name"],
        device_class=values["device_class"],
        ram_mib=float(values["ram_mib"]),
        train_gflops=float(values["train_gflops"]),
        train_gflops_lo=float(values["train_gflops_lo"]),
        train_gflops_hi=float(values["train_gflops_hi"]),
        idle_w=float(values["idle_w"]),
        train_w=float(values["train_w"]),
        train_w_kind=cast(Literal["gross", "net"], values["train_w_kind"]),
        sustained_w=float(values["sustained_w"]) if values["sustained_w"] else None,
        uplink_mbps=float(values["uplink_mbps"]),
        downlink_mbps=float(values["downlink_mbps"]),
        radio=values["radio"],
        radio_j_per_mb_up=float(values["radio_j_per_mb_up"]),
        radio_j_per_burst=float(values["radio_j_per_burst"]),
        battery_wh=float(values["battery_wh"]),
        thermal=values["thermal"],
        compute_source=values["compute_source"],
        power_source=values["power_source"],
        network_source=values["network_source"],
        battery_source=values["battery_source"],
    )
