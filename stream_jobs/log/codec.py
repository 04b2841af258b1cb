"""The Kafka protocol's messages: the one module that knows kafka-python's `kafka.protocol`.

Requests are decoded and responses encoded with the same schemas the client library uses (Apache Kafka's own message
definitions). A response is built without a version and encoded for the version of its request, so one handler serves
all versions. On the wire (https://kafka.apache.org/protocol): a frame is an int32 length and that many bytes; a request
begins with api key int16, version int16, correlation id int32, client id (int16 length, or -1), then in flexible
versions tagged fields.

Versions are capped below the flexible ones wherever nothing is lost by it: their variable-length numbers have no
bound in the decoder. Produce and Fetch stay below 13 (topic ids instead of names); the next-generation group protocol
(KIP-848) and transactions are not offered.

**Delivery**: nothing is kept here. **Bounds**: a request of a flexible version is refused when it has a run of bytes
with their high bit set that is longer than any number or name needs; frames are bounded by whoever reads them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

from kafka.protocol.admin import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    ListGroupsRequest,
    ListGroupsResponse,
)
from kafka.protocol.consumer import (
    FetchRequest,
    FetchResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)
from kafka.protocol.metadata import (
    ApiVersionsRequest,
    ApiVersionsResponse,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    MetadataRequest,
    MetadataResponse,
)
from kafka.protocol.producer import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProduceRequest,
    ProduceResponse,
)

from edge_agent.contract.errors import DecodeError

__all__ = [
    "API_VERSIONS_KEY",
    "PRODUCE_KEY",
    "SUPPORTED",
    "ApiVersionsResponse",
    "CreatePartitionsResponse",
    "CreateTopicsResponse",
    "DeleteGroupsResponse",
    "DeleteRecordsResponse",
    "DeleteTopicsResponse",
    "DescribeClusterResponse",
    "DescribeConfigsResponse",
    "DescribeGroupsResponse",
    "FetchResponse",
    "FindCoordinatorResponse",
    "HeartbeatResponse",
    "IncrementalAlterConfigsResponse",
    "InitProducerIdResponse",
    "JoinGroupResponse",
    "LeaveGroupResponse",
    "ListGroupsResponse",
    "ListOffsetsResponse",
    "MetadataResponse",
    "OffsetCommitResponse",
    "OffsetFetchResponse",
    "ProduceResponse",
    "Request",
    "SyncGroupResponse",
    "UnsupportedRequestError",
    "advertised",
    "decode_request",
    "encode_response",
]

PRODUCE_KEY = 0
API_VERSIONS_KEY = 18

SUPPORTED: dict[int, tuple[Any, int, int]] = {
    request.API_KEY: (request, least, most)
    for request, least, most in (
        (ProduceRequest, 3, 8),
        (FetchRequest, 4, 11),
        (ListOffsetsRequest, 1, 5),
        (MetadataRequest, 0, 12),
        (OffsetCommitRequest, 2, 7),
        (OffsetFetchRequest, 1, 5),
        (FindCoordinatorRequest, 0, 2),
        (JoinGroupRequest, 0, 5),
        (HeartbeatRequest, 0, 3),
        (LeaveGroupRequest, 0, 3),
        (SyncGroupRequest, 0, 3),
        (DescribeGroupsRequest, 0, 4),
        (ListGroupsRequest, 0, 2),
        (ApiVersionsRequest, 0, 3),
        (CreateTopicsRequest, 2, 4),
        (DeleteTopicsRequest, 1, 3),
        (DeleteRecordsRequest, 0, 1),
        (InitProducerIdRequest, 0, 1),
        (DescribeConfigsRequest, 1, 3),
        (CreatePartitionsRequest, 0, 1),
        (DeleteGroupsRequest, 0, 1),
        (IncrementalAlterConfigsRequest, 0, 0),
        (DescribeClusterRequest, 0, 1),
    )
}
"""Api key -> (request class, least version, most version)."""

_HEAD = struct.Struct(">hhih")
_ENDLESS_NUMBER = re.compile(rb"[\x80-\xff]{1024}")
_CLIENT_ID_BYTES_MAX = 1024


class UnsupportedRequestError(DecodeError):
    """A request that this log does not know in this version; `key`, `version` and `correlation_id` are set."""

    def __init__(self, key: int, version: int, correlation_id: int) -> None:
        super().__init__(f"request {key} in version {version} is not supported")
        self.key, self.version, self.correlation_id = key, version, correlation_id


@dataclass(frozen=True, slots=True)
class Request:
    """One decoded request; `body` has the message's fields as attributes, in snake case."""

    key: int
    version: int
    correlation_id: int
    client_id: str
    client_host: str
    body: Any


def advertised() -> list[tuple[int, int, int]]:
    """(api key, least, most version) for ApiVersions.

    Produce begins at 0, because librdkafka takes a higher one for a broker that it cannot use (KAFKA-18659).
    """
    return [(key, 0 if key == PRODUCE_KEY else least, most) for key, (_, least, most) in sorted(SUPPORTED.items())]


def _skip_tags(frame: memoryview, position: int) -> int:
    """Position after the header's tagged fields, whose numbers have at most 5 bytes each."""
    count, position = _unsigned(frame, position)
    for _ in range(count):
        _, position = _unsigned(frame, position)
        size, position = _unsigned(frame, position)
        position += size
    if position > len(frame):
        raise DecodeError("request ends within its header")
    return position


def _unsigned(frame: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for count in range(5):
        if position >= len(frame):
            break
        byte = frame[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position
    raise DecodeError("request header has a number that does not end")


def decode_request(frame: memoryview, client_host: str = "") -> Request:
    """The request in `frame` (without its length); keeps nothing of `frame`.

    Raises DecodeError for bytes that are none, UnsupportedRequestError for what is not in SUPPORTED.
    """
    if len(frame) < _HEAD.size:
        raise DecodeError(f"request of {len(frame)} bytes is shorter than its header")
    key, version, correlation_id, client_bytes = _HEAD.unpack_from(frame)
    request_class, least, most = SUPPORTED.get(key, (None, 0, -1))
    if not least <= version <= most:
        raise UnsupportedRequestError(key, version, correlation_id)
    position = _HEAD.size + max(0, client_bytes)
    if client_bytes > _CLIENT_ID_BYTES_MAX or position > len(frame):
        raise DecodeError(f"client id of {client_bytes} bytes; at most {_CLIENT_ID_BYTES_MAX}, within the request")
    try:
        client_id = str(frame[_HEAD.size : position], "utf-8")
        if request_class.flexible_version_q(version):
            position = _skip_tags(frame, position)
            if _ENDLESS_NUMBER.search(frame):
                raise DecodeError("request has a number that does not end")
        body = request_class.decode(frame[position:], version=version)
    except (struct.error, ValueError, IndexError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise DecodeError(f"request {key} v{version} cannot be decoded: {error}") from None
    return Request(key, version, correlation_id, client_id, client_host, body)


def encode_response(request: Request, response: Any, version: int | None = None) -> bytearray:
    """The frame, length included, that answers `request`."""
    response.API_VERSION = request.version if version is None else version
    response.with_header(request.correlation_id)
    frame: bytearray = response.encode(header=True, framed=True)
    return frame
