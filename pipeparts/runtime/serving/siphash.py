"""SipHash-2-4 (Aumasson and Bernstein, 2012) over many byte strings at once, in numpy.

The same hash as TensorFlow's `tf.strings.to_hash_bucket_strong`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

#: The key of every SipHash here unless a salt asks for another: the digits of pi, as fixed as any.
KEY = (0x243F6A8885A308D3, 0x13198A2E03707344)

#: Strings at a time: the lanes stay in the processor's cache.
_CHUNK = 8192
_TAIL_MASKS = np.array([(1 << (8 * length)) - 1 for length in range(8)], dtype=np.uint64)


def siphash_values(values: Sequence[bytes], key: tuple[int, int] = KEY) -> Hashes:
    """The hash of each of n byte strings."""
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    return siphash_buffer(np.frombuffer(b"".join(values), dtype=np.uint8), offsets, key)


def siphash_buffer(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], key: tuple[int, int] = KEY) -> Hashes:
    """The hash of each of n byte strings that lie one behind another.

    Args:
        data: The bytes.
        offsets: n + 1 places in `data`: where each string begins, and where the last one ends.
        key: The two 64-bit halves of the key.

    Returns:
        n hashes.
    """
    count = len(offsets) - 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    # Zero bytes behind the last value let every value's last block be read whole.
    data = np.concatenate([data[offsets[0] : offsets[-1]], np.zeros(8, np.uint8)])
    words = np.ndarray(shape=(len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))  # the 8 bytes at every place
    starts = offsets[:-1] - offsets[0]
    lengths = np.diff(offsets)
    hashes = np.empty(count, dtype=np.uint64)
    for first in range(0, count, _CHUNK):
        chunk = slice(first, first + _CHUNK)
        hashes[chunk] = _hash_chunk(words, starts[chunk], lengths[chunk], key)
    return hashes


def _hash_chunk(
    words: Hashes, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], key: tuple[int, int]
) -> Hashes:
    state = _start(len(starts), key)
    whole_blocks = lengths // 8
    for block in range(int(whole_blocks.max())):
        rows = np.flatnonzero(whole_blocks > block)
        absorbed = words[starts[rows] + 8 * block]
        if len(rows) == len(starts):
            _absorb(state, absorbed)
            continue
        part = [lane[rows] for lane in state]
        _absorb(part, absorbed)
        for lane, new in zip(state, part, strict=True):
            lane[rows] = new
    tails = words[starts + 8 * whole_blocks] & _TAIL_MASKS[lengths % 8]
    _absorb(state, tails | ((lengths & 0xFF).astype(np.uint64) << np.uint64(56)))
    return _finish(state)


def _rotate(x: Hashes, by: int) -> Hashes:
    return (x << np.uint64(by)) | (x >> np.uint64(64 - by))


def _start(count: int, key: tuple[int, int]) -> list[Hashes]:
    constants = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    return [np.full(count, constant ^ key[i % 2], dtype=np.uint64) for i, constant in enumerate(constants)]


def _absorb(state: list[Hashes], words: Hashes) -> None:
    state[3] = state[3] ^ words
    _rounds(state, 2)
    state[0] = state[0] ^ words


def _finish(state: list[Hashes]) -> Hashes:
    state[2] = state[2] ^ np.uint64(0xFF)
    _rounds(state, 4)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _rounds(state: list[Hashes], rounds: int) -> None:
    v0, v1, v2, v3 = state
    with np.errstate(over="ignore"):
        for _ in range(rounds):
            v0 = v0 + v1
            v1 = _rotate(v1, 13) ^ v0
            v0 = _rotate(v0, 32)
            v2 = v2 + v3
            v3 = _rotate(v3, 16) ^ v2
            v0 = v0 + v3
            v3 = _rotate(v3, 21) ^ v0
            v2 = v2 + v1
            v1 = _rotate(v1, 17) ^ v2
            v2 = _rotate(v2, 32)
    state[:] = [v0, v1, v2, v3]
