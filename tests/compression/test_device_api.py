"""device.proto: the generated code is what it gives, and no later version breaks a client of an earlier one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from slimfleet.compression.device_api import CHUNK_BYTES, MAX_MESSAGE_BYTES, METHODS, device_pb2
from slimfleet.compression.messages import MAX_TEXT

PROTO = Path(__file__).parents[2] / "proto"
GENERATED = Path(device_pb2.__file__).parent


def ours() -> FileDescriptorProto:
    found = FileDescriptorProto()
    device_pb2.DESCRIPTOR.CopyToProto(found)
    return found


def released() -> FileDescriptorProto:
    """As clients have it; `buf build -o released.binpb` writes it."""
    return FileDescriptorSet.FromString((PROTO / "released.binpb").read_bytes()).file[0]


def broken(before: FileDescriptorProto, after: FileDescriptorProto) -> Iterator[str]:
    """What a client of `before` would not find in `after`, as buf's rules of the kind FILE have it."""
    if before.package != after.package:
        yield f"package {before.package}"
    messages = {each.name: each for each in after.message_type}
    for old in before.message_type:
        if old.name not in messages:
            yield f"message {old.name}"
        else:
            yield from _fields(old, messages[old.name])
    services = {each.name: each for each in after.service}
    for service in before.service:
        methods = (
            {each.name: each for each in services[service.name].method} if service.name in services else {}
        )
        for method in service.method:
            if methods.get(method.name) != method:
                yield f"method {method.name}"


def _fields(old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    fields = {each.number: each for each in new.field}
    for field in old.field:
        found = fields.get(field.number)
        if found is None or (found.name, found.type, found.type_name, found.label) != (
            field.name, field.type, field.type_name, field.label,
        ):  # fmt: skip
            yield f"field {old.name}.{field.name}"


def test_no_client_of_a_released_version_is_broken():
    assert list(broken(released(), ours())) == []


def test_a_break_would_be_found():
    for change, found in (
        (lambda file: file.message_type[0].field[0].__setattr__("number", 9), "registration_json"),
        (lambda file: file.message_type[0].field[0].__setattr__("type", 12), "registration_json"),
        (lambda file: file.message_type.pop(0), "message CheckInRequest"),
        (lambda file: file.service[0].method.pop(), "method ProbeUpload"),
        (lambda file: file.service[0].method[1].ClearField("server_streaming"), "method DownloadModel"),
    ):
        changed = ours()
        change(changed)
        assert any(found in each for each in broken(released(), changed)), found


def test_messages_hold_two_texts_or_a_chunk():
    assert max(2 * 2 * MAX_TEXT, CHUNK_BYTES) < MAX_MESSAGE_BYTES  # two bytes a character: most are of one
    assert list(METHODS) == [
        *("CheckIn", "DownloadModel", "UploadUpdate", "Report"),
        *("ProbeDownload", "ProbeUpload"),
    ]


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="grpcio-tools is not installed")
def test_the_generated_code_is_that_of_the_proto(tmp_path):
    subprocess.run(
        [PROTO / "generate.sh", tmp_path], check=True, env={"PYTHON": sys.executable, "PATH": "/bin:/usr/bin"}
    )
    for name in ("device_pb2.py", "device_pb2.pyi"):
        assert (tmp_path / name).read_text() == (GENERATED / name).read_text(), name


@pytest.mark.skipif(shutil.which("buf") is None, reason="buf is not installed")
def test_buf_finds_nothing():
    for arguments in (["lint"], ["breaking", "--against", "released.binpb"]):
        said = subprocess.run(["buf", *arguments], cwd=PROTO, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout + said.stderr
