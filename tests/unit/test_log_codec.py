"""The protocol's messages: requests decode, responses encode in every advertised version; the library still fits."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.producer import ProduceRequest

from edge_agent.contract.errors import DecodeError
from stream_jobs.log import codec
from stream_jobs.log.codec import SUPPORTED, Request, UnsupportedRequestError, decode_request, encode_response
from stream_jobs.log.handlers import HANDLERS


def frame(message: Any, version: int) -> memoryview:
    """A request's frame as a client sends it."""
    message.API_VERSION = version
    message.with_header(77, "tester")
    return memoryview(bytes(message.encode(header=True)))


def response_class(key: int) -> Any:
    """The response's class for an api key."""
    return getattr(codec, SUPPORTED[key][0].__name__.replace("Request", "Response"))


@pytest.mark.parametrize("key", sorted(SUPPORTED))
def test_every_version_round_trips(key: int) -> None:
    """An empty request of each version is decoded, and an empty response encoded and read back by the client."""
    request_class, least, most = SUPPORTED[key]
    for version in range(least, most + 1):
        request = decode_request(frame(request_class(version=version), version), "/host")
        assert (request.key, request.version, request.correlation_id, request.client_id) == (key, version, 77, "tester")
        response = response_class(key)
        data = bytes(encode_response(request, response(version=version)))
        assert struct.unpack_from(">ii", data) == (len(data) - 4, 77)
        assert response.decode(data, version=version, header=True, framed=True) is not None


def test_every_supported_request_has_a_handler() -> None:
    """What is advertised is answered, and nothing else is."""
    assert HANDLERS.keys() == SUPPORTED.keys()


def test_what_is_advertised() -> None:
    """No topic ids, transactions or next-generation group protocol; Produce begins at 0 for librdkafka."""
    versions = {key: (least, most) for key, least, most in codec.advertised()}
    assert versions[0][0] == 0
    assert versions[0][1] < 13
    assert versions[1][1] < 13
    assert not versions.keys() & {24, 25, 26, 28, 68, 69}


def test_records_pass_through_untouched() -> None:
    """The bytes of a produce request's records come out as they went in."""
    topic = ProduceRequest.TopicProduceData
    data = topic.PartitionProduceData(index=3, records=bytes(range(256)))
    message = ProduceRequest(
        transactional_id=None, acks=-1, timeout_ms=5, topic_data=[topic(name="t", partition_data=[data])]
    )
    body = decode_request(frame(message, 8)).body
    assert body.topic_data[0].name == "t"
    assert body.topic_data[0].partition_data[0].records == bytes(range(256))


def test_a_response_is_encoded_for_the_version_of_its_request() -> None:
    """A response is built the same for an old and a new version."""
    for version in (0, 5, 12):
        answer = codec.MetadataResponse(brokers=[], cluster_id="c", controller_id=0, topics=[])
        request = Request(3, version, 5, "", "", None)
        data = bytes(encode_response(request, answer))
        found = codec.MetadataResponse.decode(data, version=version, header=True, framed=True)
        assert found.cluster_id == ("c" if version >= 2 else None)


def test_unsupported_requests_are_named() -> None:
    """An unknown key, a version too high and a version too low carry what an answer needs."""
    for message, version in ((ApiVersionsRequest(), 4), (FetchRequest(topics=[]), 12), (ProduceRequest(version=3), 3)):
        data = bytearray(frame(message, version))
        if isinstance(message, ProduceRequest):
            data[2:4] = b"\0\2"
        with pytest.raises(UnsupportedRequestError) as caught:
            decode_request(memoryview(data))
        assert caught.value.correlation_id == 77


def test_requests_cut_off_anywhere_are_refused_or_harmless() -> None:
    """No prefix of a request raises anything but DecodeError."""
    whole = frame(MetadataRequest(topics=None, version=12), 12)
    for length in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_request(whole[:length])


def test_a_number_without_end_is_refused_at_once() -> None:
    """A flexible request full of continuation bits does not occupy the decoder."""
    head = bytes(frame(MetadataRequest(topics=None, version=12), 12)[:17])
    with pytest.raises(DecodeError, match="does not end"):
        decode_request(memoryview(head + b"\xff" * 1_000_000))
