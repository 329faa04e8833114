from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CheckInRequest(_message.Message):
    __slots__ = ("registration_json", "condition_json")
    REGISTRATION_JSON_FIELD_NUMBER: _ClassVar[int]
    CONDITION_JSON_FIELD_NUMBER: _ClassVar[int]
    registration_json: str
    condition_json: str
    def __init__(self, registration_json: _Optional[str] = ..., condition_json: _Optional[str] = ...) -> None: ...

class CheckInResponse(_message.Message):
    __slots__ = ("plan", "wait")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    plan: Plan
    wait: Wait
    def __init__(self, plan: _Optional[_Union[Plan, _Mapping]] = ..., wait: _Optional[_Union[Wait, _Mapping]] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("plan_id", "assignment_json", "model_bytes", "model_sha256")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_JSON_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    plan_id: int
    assignment_json: str
    model_bytes: int
    model_sha256: bytes
    def __init__(self, plan_id: _Optional[int] = ..., assignment_json: _Optional[str] = ..., model_bytes: _Optional[int] = ..., model_sha256: _Optional[bytes] = ...) -> None: ...

class Wait(_message.Message):
    __slots__ = ("seconds", "introduce")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    INTRODUCE_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    introduce: bool
    def __init__(self, seconds: _Optional[float] = ..., introduce: _Optional[bool] = ...) -> None: ...

class DownloadModelRequest(_message.Message):
    __slots__ = ("plan_id", "offset")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    plan_id: int
    offset: int
    def __init__(self, plan_id: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadModelResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class UploadUpdateRequest(_message.Message):
    __slots__ = ("plan_id", "offset", "data", "update_sha256")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    plan_id: int
    offset: int
    data: bytes
    update_sha256: bytes
    def __init__(self, plan_id: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., update_sha256: _Optional[bytes] = ...) -> None: ...

class UploadUpdateResponse(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("plan_id", "done", "refusal")
    PLAN_ID_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    plan_id: int
    done: Done
    refusal: Refusal
    def __init__(self, plan_id: _Optional[int] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("report_json", "update_sha256")
    REPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SHA256_FIELD_NUMBER: _ClassVar[int]
    report_json: str
    update_sha256: bytes
    def __init__(self, report_json: _Optional[str] = ..., update_sha256: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "message", "spent_json")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SPENT_JSON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    spent_json: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., spent_json: _Optional[str] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("repeated",)
    REPEATED_FIELD_NUMBER: _ClassVar[int]
    repeated: bool
    def __init__(self, repeated: _Optional[bool] = ...) -> None: ...

class ProbeDownloadRequest(_message.Message):
    __slots__ = ("size_bytes",)
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    def __init__(self, size_bytes: _Optional[int] = ...) -> None: ...

class ProbeDownloadResponse(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ProbeUploadRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ProbeUploadResponse(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...
