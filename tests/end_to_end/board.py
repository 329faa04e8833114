"""Profile of the devices of a federation in processes."""

from slimfleet.compression import DeviceProfile

BOARD = DeviceProfile(
    name="board", device_class="sbc", ram_bytes=4 * 2**30, train_flops_per_s=1e9, idle_w=1.0, train_w=2.0,
    uplink_bytes_per_s=1e6, downlink_bytes_per_s=1e6,
    radio_j_per_byte_up=1e-6, radio_j_per_byte_down=1e-6, radio_j_per_burst=0.1,
)  # fmt: skip
"""What every device says that it is."""
