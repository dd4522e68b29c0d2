"""Netlink itself: messages, attributes, acknowledgements and dumps (netlink(7)); what they mean is others' matter."""

from __future__ import annotations

import _socket
import errno
import os
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

AF_NETLINK = 16

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTERRUPTED = 0x10
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300
NLA_F_NESTED = 0x8000

_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK = 270, 10, 11, 12
_NLMSGERR_ATTR_MSG = 1
_ACK_CAPPED, _ACK_TLVS = 0x100, 0x200
_RECEIVE_BYTES = 65536
_DUMP_ATTEMPTS = 10

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class Message(NamedTuple):
    """A request: the message's type, flags beside NLM_F_REQUEST, and what follows the header."""

    type: int
    flags: int
    payload: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute (struct nlattr), padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text_attribute(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *members: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(members))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by kind, without the nesting bits; of several of a kind the last."""
    return dict(attribute_list(data))


def attribute_list(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in ``data`` in order."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


class Netlink:
    """A netlink socket of one protocol in the network namespace in which it is opened; a context manager."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self, protocol: int, *, strict: bool = False) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(AF_NETLINK, kind, protocol)
        self._sequence = 0
        # Answers do not repeat the request, and say in words what was wrong with it.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        if strict:
            # Else the kernel passes over the selectors of a dump (4.20).
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, *messages: Message, subject: str = "") -> list[bytes]:
        """Send the messages at once; wait for the answer to each.

        Returns what the kernel sent beside the acknowledgements. Raises OSError for the first that failed, with the
        kernel's own words and ``subject`` as its file name; the later ones were tried all the same.
        """
        first = self._sequence + 1
        self._socket.send(b"".join(self._frame(message, NLM_F_ACK) for message in messages))
        answers: list[bytes] = []
        failure: OSError | None = None
        waiting = len(messages)
        while waiting:
            for kind, flags, sequence, payload in self._receive():
                if sequence < first:
                    continue
                if kind != NLMSG_ERROR:
                    answers.append(payload)
                    continue
                waiting -= 1
                failure = failure or self.failure(payload, flags, subject)
        if failure:
            raise failure
        return answers

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """Ask for a list; returns (type, payload) of each part. A list that changed meanwhile is asked for again."""
        for _ in range(_DUMP_ATTEMPTS):
            sequence = self._sequence + 1
            self._socket.send(self._frame(message, NLM_F_DUMP))
            parts, whole = self._dump_parts(sequence)
            if whole:
                return parts
        raise OSError(errno.EINTR, "the list changes faster than it can be read")

    @staticmethod
    def failure(payload: bytes, flags: int, subject: str) -> OSError | None:
        """What an acknowledgement says; None for success."""
        code: int = -struct.unpack_from("=i", payload)[0]
        if not code:
            return None
        text = os.strerror(code)
        if flags & _ACK_TLVS:
            # The error number and the request's header come first; without capping, the request itself, too.
            length = _HEADER.size if flags & _ACK_CAPPED else _HEADER.unpack_from(payload, 4)[0]
            words = attributes(payload[4 + length :]).get(_NLMSGERR_ATTR_MSG, b"")
            if words:
                text = f"{text} ({words.rstrip(bytes(1)).decode('utf-8', 'replace')})"
        return OSError(code, text, subject) if subject else OSError(code, text)

    def _dump_parts(self, wanted: int) -> tuple[list[tuple[int, bytes]], bool]:
        parts: list[tuple[int, bytes]] = []
        whole = True
        while True:
            for kind, flags, sequence, payload in self._receive():
                if sequence != wanted:
                    continue
                if flags & NLM_F_DUMP_INTERRUPTED and kind != NLMSG_ERROR:
                    whole = False
                if kind == NLMSG_DONE:
                    return parts, whole
                if kind == NLMSG_ERROR:
                    failure = self.failure(payload, flags, "")
                    if failure:
                        raise failure
                    return parts, whole
                parts.append((kind, payload))

    def _frame(self, message: Message, flags: int) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(message.payload)
        header = _HEADER.pack(length, message.type, message.flags | flags | NLM_F_REQUEST, self._sequence, 0)
        return header + message.payload + bytes(-length % 4)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                return
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3
