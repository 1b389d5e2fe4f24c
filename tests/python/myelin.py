"""A client of Myelin in nothing but Python's standard library, written from net/README.md alone.

    node = Node("127.0.0.1", 7400)
    market = node.markets(["demo:BTCUSD"])[0]
    tx = node.ticks([tick(market, 1, 61000.0)]).tx
    node.count(as_of=tx)

One connection, one request at a time, nodes of one shard (a market's slot is an XXH3, which the standard library lacks).
"""

import collections
import secrets
import socket
import struct
import time
import zlib

HEADER = struct.Struct("<4sBBHIIQQQHHIQI")  # all of the header but its checksum
Frame = collections.namedtuple("Frame", "kind flags session request tx shard code count aux credit body")
Ack = collections.namedtuple("Ack", "tx accepted duplicates refused first_bad first_code verdicts")
Firing = collections.namedtuple(
    "Firing", "reflex tx n kind zero slot value basis received_ns durable_ns fired_ns tick")
FIRING = struct.Struct("<QQIBBHddqqq64s")
TICK = struct.Struct("<QQqddQBBHiII")

HELLO, TICKS, QUOTES, MARKETS, LIST_MARKETS, COUNT = 1, 2, 3, 4, 5, 6
REGISTER, REMOVE, SUBSCRIBE, CREDIT, RESUME, PING, NOW = 11, 12, 14, 15, 16, 17, 18
WELCOME, ACK, REFUSED, ANSWER, FIRINGS, PONG, ENDED = 129, 130, 131, 132, 133, 134, 135
PARTIAL, BUSY = 1, 40
# A refusal with one of these was decided when it was applied: its number is spent.
SPENT = {30, 31, 32, 33, 34, 37, 57}


class Refused(Exception):
    """The node said no: by code, with the first row it is about (None: no row), and a sentence."""

    def __init__(self, frame):
        super().__init__(frame.body.decode())
        self.code, self.aux = frame.code, frame.aux
        self.first_bad = None if frame.count == 0xFFFFFFFF else frame.count


def tick(market, id, price, volume=1.0, event_time_ns=0, side=0, flags=0):
    """The 64 bytes of a tick."""
    return TICK.pack(market, id, event_time_ns, price, volume, 0, side, flags, 0, -(1 << 31), 0, 0)


def above(reflex, price, market):
    """The registration of a band over one market."""
    name = market.encode()
    return struct.pack("<QBdBB", reflex, 1, price, 1, len(name)) + name


def text(value):
    return struct.pack("<H", len(value.encode())) + value.encode()


class Node:
    """A connection, and a session of its own."""

    def __init__(self, host, port, patience=30):
        self.socket = socket.create_connection((host, port), timeout=patience)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pushed = collections.deque()
        self.session, self.request = secrets.randbits(63) + 1, 1
        welcome = self.ask(HELLO, struct.pack("<QB", 0, 0) + text("python") + text(""), kind=WELCOME)
        self.id, _, self.max_body, _, _, cores = struct.unpack_from("<QQIIHH", welcome.body)
        (self.shards,) = struct.unpack_from("<H", welcome.body, 28 + 2 * cores)
        if self.shards != 1:
            raise ValueError("this client speaks to nodes of one shard")

    # ---- frames

    def say(self, kind, body=b"", flags=0, session=0, request=0, tx=0, count=0, aux=0):
        head = HEADER.pack(b"MYLN", 1, kind, flags, len(body), zlib.crc32(body), session, request, tx, 0, 0, count, aux, 0)
        self.socket.sendall(head + struct.pack("<I", zlib.crc32(head)) + body + b"\0" * (-len(body) % 8))

    def exactly(self, length):
        got = bytearray()
        while len(got) < length:
            more = self.socket.recv(length - len(got))
            if not more:
                raise ConnectionError("the node closed the connection")
            got += more
        return bytes(got)

    def hear(self):
        head = self.exactly(64)
        magic, version, kind, flags, length, crc, session, request, tx, shard, code, count, aux, credit = HEADER.unpack(
            head[:60])
        body = self.exactly(length + -length % 8)[:length]
        if (magic, version) != (b"MYLN", 1) or zlib.crc32(head[:60]) != struct.unpack("<I", head[60:])[0]:
            raise ValueError("not a frame")
        if zlib.crc32(body) != crc:
            raise ValueError("a damaged body")
        return Frame(kind, flags, session, request, tx, shard, code, count, aux, credit, body)

    def ask(self, what, body=b"", kind=ANSWER, **header):
        """Says one thing and waits for its answer; what is pushed meanwhile is kept."""
        self.say(what, body, **header)
        while True:
            frame = self.hear()
            if frame.kind in (FIRINGS, ENDED):
                self.pushed.append(frame)
            elif frame.kind == REFUSED:
                raise Refused(frame)
            elif frame.kind == kind:
                return frame
            else:
                raise ValueError(f"kind {frame.kind} in place of {kind}")

    # ---- writes

    def write(self, what, body, kind=ACK, again=None, **header):
        """The next request of the session, or one that is said again. `Busy` is waited for."""
        number = again or self.request
        while True:
            try:
                frame = self.ask(what, body, kind, session=self.session, request=number, **header)
                break
            except Refused as refused:
                if refused.code == BUSY:
                    time.sleep(refused.aux / 1e6)
                    self.say(RESUME, session=self.session, aux=number)
                    continue
                if refused.code in SPENT and not again:
                    self.request += 1
                raise
        if not again:
            self.request += 1
        return frame

    def markets(self, names, flags=0):
        body = b"".join(bytes([flags]) + text(name) for name in names)
        answer = self.write(MARKETS, body, ANSWER, count=len(names))
        return list(struct.unpack(f"<{len(names)}Q", answer.body))

    def ticks(self, rows, partial=False, again=None):
        frame = self.write(TICKS, b"".join(rows), flags=PARTIAL if partial else 0, count=len(rows), again=again)
        verdicts = struct.unpack(f"<{(len(frame.body) - 16) // 2}H", frame.body[16:])
        return Ack(frame.tx, frame.count, *struct.unpack_from("<IIII", frame.body), verdicts)

    def register(self, *registrations):
        return self.write(REGISTER, b"".join(registrations), count=len(registrations)).count

    def remove(self, *reflexes):
        return self.write(REMOVE, struct.pack(f"<{len(reflexes)}Q", *reflexes), count=len(reflexes)).count

    # ---- reads and firings

    def count(self, attribute=1, market=0, as_of=0, min_tx=0):
        return self.ask(COUNT, struct.pack("<QQ", attribute, market), tx=as_of, aux=min_tx).aux

    def now(self):
        return self.ask(NOW).tx

    def subscribe(self, session, reflex=0, after=(0, 0, 0), credit=100):
        tx, n, last = after
        self.ask(SUBSCRIBE, struct.pack("<QQIIQ", reflex, tx, n, 0, last), session=session, count=credit)

    def grant(self, session, credit):
        self.say(CREDIT, session=session, count=credit)

    def firings(self):
        """The next page of firings, waited for."""
        frame = self.pushed.popleft() if self.pushed else self.hear()
        if frame.kind != FIRINGS:
            raise Refused(frame)
        return [Firing(*FIRING.unpack_from(frame.body, 128 * n)) for n in range(frame.count)]

    def close(self):
        self.socket.close()
