"""Callers that a gateway must not serve, or that would wear it out: refused or timed out, counted, and harmless."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from raw_calls import Unserved, channel, raw, tls
from relay import eventually

from slimfleet.client.gateway.calling import Away, Busy, Declined
from slimfleet.compression import Condition
from slimfleet.compression.device_api import METHODS, CheckInRequest, Done, ReportRequest, UploadUpdateRequest
from slimfleet.compression.messages import Registration, text_of
from slimfleet.coordinator.gateway.admission import Admission
from slimfleet.coordinator.gateway.https_session import HTTP
from slimfleet.coordinator.gateway.refusal import Refused
from slimfleet.coordinator.observing.prometheus import serve_metrics
from slimfleet.coordinator.pki import PkiFolder, Revocations, Unknown, identity_of
from slimfleet.coordinator.pki.identity import node_of
from slimfleet.coordinator.refusal_status import STATUS
from slimfleet.coordinator.transport.link import Said


def is_served(hall, name: str = "pi-2") -> bool:
    return hall.connection(name).check_in("", "").WhichOneof("next") == "wait"


def test_a_node_is_known_by_its_certificate_and_by_no_field(opened, big_work, phone):
    hall = opened()
    work = big_work("pi-2")
    hall.gateway.link.send([work])
    calls = hall.connection("pi-1")
    # What belongs to another device is not there for this one, whatever number it names.
    assert calls.check_in("", "").WhichOneof("next") == "wait"
    with pytest.raises(Declined) as declined:
        calls.report(ReportRequest(plan_id=work.plan_id, done=Done(report_json="{}")))
    assert declined.value.status == "NOT_FOUND"
    forged = CheckInRequest(registration_json=text_of(Registration(profile=phone, examples=3)))
    unknown_field = b"\xa2\x06\x04pi-2"  # field 100, of a later version or of a liar
    with raw(hall, "pi-1") as call:
        said = {"device": "pi-2", "x-forwarded-client-cert": "pi-2"}
        call("CheckIn", [forged.SerializeToString() + unknown_field], said)
    assert Said(node_of("pi-1"), Registration(profile=phone, examples=3)) in hall.gateway.link.said()
    assert hall.connection("pi-2").check_in("", "").plan.plan_id == work.plan_id


def test_strangers_are_refused_at_the_door_and_counted(opened, pki, keys_elsewhere, tmp_path):
    hall = opened(idle_s=2.0)
    with pytest.raises(Away):
        hall.connection(pki=keys_elsewhere).check_in("", "")
    eventually(lambda: hall.refused().get("handshake", 0) >= 1, "the foreign certificate is counted")
    # Of this authority, but the server's: it names no device.
    (tmp_path / "devices" / "pi-1").mkdir(parents=True)
    for name in ("crt", "key"):
        copied = (pki.root / f"server.{name}").read_bytes()
        (tmp_path / "devices" / "pi-1" / f"device.{name}").write_bytes(copied)
    with pytest.raises((Away, Declined)):
        hall.connection(pki=PkiFolder(tmp_path)).check_in("", "")
    eventually(lambda: sum(hall.refused().values()) >= 2, "the server's certificate is counted")
    assert is_served(hall)


def test_an_expired_certificate_is_refused_at_the_door_and_later_on(opened, tmp_path, pki):
    folder = PkiFolder(tmp_path / "pki")
    folder.init("test", 10)
    folder.add_server(["127.0.0.1"], 10)
    folder.add_device("pi-1", 0)
    folder.add_device("pi-2", 10)
    hall = opened(folder, idle_s=2.0)
    with pytest.raises(Away):
        hall.connection("pi-1").check_in("", "")
    eventually(lambda: hall.refused().get("handshake", 0) >= 1, "the expired certificate is counted")
    assert is_served(hall)
    # A connection may outlast the certificate that opened it.
    content = (pki.device("pi-1") / "device.crt").read_bytes()
    assert identity_of(content, time.time() + 9 * 86_400).name == "pi-1"
    with pytest.raises(Unknown, match="pi-1 expired on"):
        identity_of(content, time.time() + 11 * 86_400)


def test_a_revoked_device_is_refused_on_the_connection_that_it_has(opened, tmp_path):
    folder = PkiFolder(tmp_path / "pki")
    folder.init("test", 10)
    folder.add_server(["127.0.0.1"], 10)
    for name in ("pi-1", "pi-2", "pi"):
        folder.add_device(name, 10)
    folder.rotate_device("pi-1", 10)
    hall = opened(folder)
    calls = hall.connection("pi-1")
    assert calls.check_in("", "").WhichOneof("next") == "wait"
    assert folder.revoke("pi-1") == 2

    def is_refused() -> bool:
        try:
            calls.check_in("", "")
        except Declined as declined:
            return declined.status == "PERMISSION_DENIED"
        return False

    eventually(is_refused, "the list is read anew")
    assert hall.refused()["revoked"] >= 1
    assert is_served(hall, "pi-2")
    assert is_served(hall, "pi")
    folder.add_device("pi-3", 10)
    shutil.copytree(folder.root / "devices", tmp_path / "old" / "devices")
    folder.rotate_device("pi-1", 10)  # found again, with a new key: the same device
    assert is_served(hall, "pi-1")
    folder.revoked.write_text("no list")
    time.sleep(1.1)
    with pytest.raises(Declined):
        # The old certificate: the list that was read before holds on.
        hall.connection("pi-1", PkiFolder(tmp_path / "old")).check_in("", "")


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("CheckIn", [b"\xff\xff\xff"], "message"),
        ("CheckIn", [], "message"),
        ("CheckIn", [CheckInRequest(condition_json='{"battery": 2.0}').SerializeToString()], "message"),
        ("CheckIn", [CheckInRequest(registration_json="{").SerializeToString()], "message"),
        ("Report", [b""], "message"),
        ("UploadUpdate", [], "message"),
        ("UploadUpdate", [UploadUpdateRequest(plan_id=7, data=b"1").SerializeToString()], "unknown_plan"),
        ("DownloadModel", [b""], "unknown_plan"),
    ],
)
def test_what_cannot_be_understood_is_refused_and_counted(opened, name, messages, reason):
    hall = opened()
    with raw(hall, "pi-1") as call, pytest.raises(Unserved) as unserved:
        call(name, messages)
    assert unserved.value.details.startswith(f"{reason}: ")
    assert unserved.value.status == STATUS[reason]
    assert hall.refused() == {reason: 1}
    assert is_served(hall)


def test_a_message_that_is_too_long_is_refused_before_it_is_read(opened):
    hall = opened()
    with raw(hall, "pi-1") as call, pytest.raises((Unserved, OSError)) as error:
        call("UploadUpdate", [bytes(10_000_000)])
    if hall.transport == "grpc":
        assert error.value.status == "RESOURCE_EXHAUSTED"
    else:
        assert hall.refused() == {"size": 1}
    assert is_served(hall)


@pytest.mark.parametrize("transport", ["grpc"])
def test_two_thousand_retries_cost_the_others_nothing(opened):
    hall = opened(calls_per_s=1.0)
    request = CheckInRequest().SerializeToString()
    with channel(hall, "pi-1") as calls:
        path = METHODS["Report"].path
        stub = calls.unary_unary(path, request_serializer=None, response_deserializer=None)
        for _ in range(10):
            futures = [stub.future(request) for _ in range(200)]
            assert all(each.code() is not grpc.StatusCode.OK for each in futures)
    counts = hall.refused()
    # gRPC itself turns some away, which are more than a connection may have open at a time.
    assert 1_000 < counts["rate"] <= sum(counts.values()) <= 2_000
    assert is_served(hall)


def test_the_rate_of_one_device_is_no_other_device_s(pki):
    now = [0.0]
    admission = Admission(
        Revocations(pki.revoked, pki.authority_certificate()), 2.0, lambda: now[0], time.time
    )
    first, second = ((pki.device(name) / "device.crt").read_bytes() for name in ("pi-1", "pi-2"))
    for _ in range(10):
        admission.admit(first)
    with pytest.raises(Refused, match="2 calls a second"):
        admission.admit(first)
    assert admission.admit(second).name == "pi-2"
    now[0] += 0.5
    assert admission.admit(first).node == node_of("pi-1")
    with pytest.raises(Refused):
        admission.admit(first)
    with pytest.raises(Refused):
        admission.admit(None)


def test_a_call_that_stands_still_is_ended(opened, big_work):
    hall, work = opened(idle_s=0.5), big_work()
    hall.gateway.link.send([work])

    def slowly():
        yield UploadUpdateRequest(plan_id=work.plan_id, data=b"1", update_sha256=b"2").SerializeToString()
        time.sleep(3.0)

    with raw(hall, "pi-1") as call, pytest.raises(Unserved) as unserved:
        call("UploadUpdate", slowly())
    assert unserved.value.status == "DEADLINE_EXCEEDED"
    assert hall.refused() == {"slow": 1}
    assert is_served(hall)


def test_connections_that_do_not_greet_are_closed_and_bounded_in_number(opened):
    """Half-open ones, ones that send a byte now and then, ones that speak another protocol."""
    hall = opened(idle_s=1.0, connections=8, connections_per_address=6)
    port = hall.gateway.port
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    slow = socket.create_connection(("127.0.0.1", port))
    slow.sendall(b"\x16\x03\x01\x02\x00\x01")
    other = socket.create_connection(("127.0.0.1", port))
    other.sendall(b"GET / HTTP/1.1\r\n\r\n")
    other.settimeout(5)
    assert is_closed(other)
    surplus = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    eventually(lambda: hall.refused().get("connections", 0) >= 1, "surplus connections are counted")
    eventually(lambda: hall.refused().get("handshake", 0) >= 6, "silent connections are ended and counted")
    for each in (*silent, slow, *surplus):
        each.settimeout(5)
        assert is_closed(each)
        each.close()
    other.close()
    assert is_served(hall)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end closes or resets the connection, whatever it says before."""
    try:
        while connection.recv(4_096):
            pass
    except (ConnectionResetError, ssl.SSLError):
        pass
    return True


def test_a_connection_that_greets_and_makes_no_call_is_closed(opened, pki):
    hall = opened(idle_s=1.0)
    context = tls(pki.ca_crt, pki.device("pi-1"), {"grpc": "h2", "https": "http/1.1"}[hall.transport])
    with (
        socket.create_connection(("127.0.0.1", hall.gateway.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as silent,
    ):
        silent.settimeout(10)
        assert is_closed(silent)
    assert hall.refused() == {"handshake": 1}
    assert is_served(hall)


def test_a_device_that_introduces_itself_all_the_time_is_listened_to_now_and_then(opened, phone):
    hall = opened()
    calls = hall.connection()
    for number in range(1, 6):
        text = text_of(Registration(profile=replace(phone, name=f"phone {number}"), examples=number))
        calls.check_in(text, text_of(Condition(battery=number / 10)))
    said = hall.gateway.link.said()
    assert [each.what.examples for each in said if isinstance(each.what, Registration)] == [1]
    assert [each.what.battery for each in said if isinstance(each.what, Condition)] == [0.5]
    # Asked, it may say it again.
    hall.gateway.link.ask({node_of("pi-1"): None})
    assert calls.check_in("", "").wait.introduce
    assert not calls.check_in(text, "").wait.introduce
    assert len(hall.gateway.link.said()) == 1


@pytest.mark.parametrize("transport", ["https"])
def test_refusals_are_counted_for_prometheus(opened):
    metrics, server = serve_metrics(0, federation="gate")
    with server:
        hall = opened(calls_per_s=0.2)
        hall.gateway.refusals.tell([metrics])
        calls = hall.connection()
        assert calls.check_in("", "").WhichOneof("next") == "wait"
        for _ in range(3):
            with pytest.raises(Busy):
                calls.check_in("", "")
        with raw(hall, "pi-2") as call, pytest.raises(Unserved):
            call("Report", [b""])
        with urllib.request.urlopen(server.url, timeout=10) as response:
            text = response.read().decode()
    counted = {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "slimfleet_gateway_refusals_total" and sample.labels["federation"] == "gate"
    }
    assert counted.keys() == {*STATUS, "other"}
    assert (
        {reason: count for reason, count in counted.items() if count}
        == hall.refused()
        == {"rate": 3, "message": 1}
    )


def test_the_page_has_every_reason_with_its_status():
    page = (Path(__file__).parents[3] / "docs" / "device-api.md").read_text()
    rows = re.findall(r"^\| ([A-Z_]+(?:, [A-Z_]+)*) \| ([\d, ]+) \|([^|]*)\|", page, re.MULTILINE)
    pairs = [zip(names.split(", "), codes.split(", "), strict=True) for names, codes, _ in rows]
    told = {name: int(code) for each in pairs for name, code in each}
    assert told == HTTP
    reasons = {reason: names for names, _, reasons in rows for reason in re.findall(r"`(\w+)`", reasons)}
    silent = {"connections", "handshake", "error"}
    assert reasons == {reason: status for reason, status in STATUS.items() if reason not in silent}
