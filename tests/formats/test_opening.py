"""Compressed bodies are opened whatever their headers say, and never grow beyond their bound."""

from __future__ import annotations

import gzip
import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.formats.events import Event
from poisonwatch.formats.opening import GZIP, MOST_MEMBERS, ZSTD, opened
from tests.formats.posted import reason_of

BODY = b'{"instances": [[1, 2]]}' * 40
MOST = 1 << 20


def squeezed(data: bytes) -> bytes:
    """The data as one frame of zstd, with its checksum."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def refused(body: bytes, most: int = MOST) -> str:
    """The reason for which a body is refused."""
    return reason_of(lambda: opened(Event(body), most))


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity", "br", None])
@pytest.mark.parametrize("body", [BODY, gzip.compress(BODY), squeezed(BODY)])
def test_the_first_bytes_say_what_it_is(body: bytes, encoding: str | None) -> None:
    """A header that was stripped, that lies, or that outlived the compression hides nothing."""
    headers = {} if encoding is None else {"content-encoding": encoding}
    assert opened(Event(body, headers), MOST) == BODY


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]),
        gzip.compress(BODY) + bytes(20),
        squeezed(BODY[:100]) + squeezed(BODY[100:]),
        gzip.compress(squeezed(BODY)),
        squeezed(gzip.compress(BODY)),
    ],
)
def test_members_padding_and_two_layers(body: bytes) -> None:
    """What clients and what stands before the server may do to a body is undone."""
    assert opened(Event(body), MOST) == BODY


@pytest.mark.parametrize("whole", [gzip.compress(BODY), squeezed(BODY)])
def test_broken_compression_is_a_reason(whole: bytes) -> None:
    """Cut off, followed by rubbish, or with a flipped bit."""
    assert refused(whole[:-1]) == refused(whole[: len(whole) // 2]) == refused(whole + b"rubbish") == "bad_compression"
    assert refused(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]) == "bad_compression"


def test_three_layers_are_too_many() -> None:
    """Nobody compresses a body three times but to keep the monitor busy."""
    assert refused(gzip.compress(gzip.compress(gzip.compress(BODY)))) == "bad_compression"


@pytest.mark.parametrize("pack", [gzip.compress, squeezed])
def test_a_bomb_is_not_unpacked(pack: object) -> None:
    """A hundred megabytes of nothing are refused for a few."""
    assert callable(pack)
    bomb = pack(bytes(100 << 20))
    tracemalloc.start()
    try:
        assert refused(bomb) == "body_too_large"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert refused(pack(bomb)) == "body_too_large"


def test_the_bound_is_exact() -> None:
    """As many bytes as allowed are, one more is not."""
    for body in (BODY, gzip.compress(BODY), squeezed(BODY)):
        assert opened(Event(body), len(BODY)) == BODY
        assert refused(body, len(BODY) - 1) == "body_too_large"


def test_a_zstd_window_is_bounded() -> None:
    """A frame that wants to look back over 64 MB would have them allocated."""
    packer = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=26, write_content_size=False)
    ).compressobj()
    assert refused(packer.compress(BODY) + packer.flush()) == "bad_compression"


@pytest.mark.parametrize("empty", [gzip.compress(b""), squeezed(b"")])
def test_empty_members_are_bounded(empty: bytes) -> None:
    """Thousands of members without anything in them must not be copied thousands of times."""
    assert opened(Event(empty * MOST_MEMBERS), MOST) == b""
    assert refused(empty * (MOST_MEMBERS + 1)) == "bad_compression"


@given(data=st.binary(max_size=3000), seed=st.integers(0, 1000))
def test_what_was_packed_is_unpacked(data: bytes, seed: int) -> None:
    """Any bytes, also incompressible ones that are larger than a bite."""
    data = data if data.startswith((GZIP, ZSTD)) else data + random.Random(seed).randbytes(seed)
    for packed in (gzip.compress(data), squeezed(data)):
        if not data.startswith((GZIP, ZSTD)):
            assert opened(Event(packed), MOST) == data


@given(start=st.sampled_from([b"", GZIP, ZSTD, gzip.compress(BODY)[:40], squeezed(BODY)[:30]]), rest=st.binary())
def test_no_bytes_raise(start: bytes, rest: bytes) -> None:
    """They are a body, or there is a reason."""
    reason = reason_of(lambda: opened(Event(start + rest), MOST))
    assert reason in {"", "bad_compression", "body_too_large"}
