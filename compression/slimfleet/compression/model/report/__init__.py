"""Report of a compression: one HTML page. The plots need matplotlib, everything else does not."""
