#!/usr/bin/env bash
# Generates the Python of device.proto into the folder $1, by default where it is kept. Needs grpcio-tools 1.81.1.
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-../compression/slimfleet/compression/device_api}"
made="$(mktemp -d)"
trap 'rm -r "$made"' EXIT
"${PYTHON:-python}" -m grpc_tools.protoc -I. --python_out="$made" --pyi_out="$made" slimfleet/device/v1/device.proto
cp "$made"/slimfleet/device/v1/device_pb2.py "$made"/slimfleet/device/v1/device_pb2.pyi "$out"
