"""Speaks to a running node as a stranger would, and says what it saw: `python3 check.py HOST:PORT`.

Every line printed is a fact that was checked; the first that does not hold ends it with a traceback and exit code 1.
"""

import sys

from myelin import CREDIT, PING, PONG, Node, Refused, above, tick

ID_CONFLICT, SESSION_GAP, FUTURE, UNKNOWN_KIND, PRICE_NOT_FINITE = 31, 43, 50, 4, 12


def refused(code, action, first_bad=None):
    try:
        action()
    except Refused as refusal:
        assert (refusal.code, refusal.first_bad) == (code, first_bad), (refusal.code, refusal.first_bad, str(refusal))
        assert str(refusal).endswith("."), "a refusal is a sentence"
        return
    raise AssertionError(f"was not refused with code {code}")


def is_checked(what):
    print(f"ok  {what}")


def main(address):
    host, port = address.rsplit(":", 1)
    node = Node(host, int(port))
    assert node.ask(PING, b"are you there", PONG).body == b"are you there"
    is_checked("hello, ping")

    bitcoin, ether = node.markets(["python:{BTC}USD", "python:{ETH}USD"])
    assert bitcoin >> 60 == 2 and ether >> 60 == 2 and bitcoin != ether
    assert (bitcoin >> 48) & 0xFFF == 2384, "the slot of BTC, as the page says"
    assert node.markets(["python:{ETH}USD"]) == [ether], "a market is created once"
    is_checked("markets")

    before = node.count()
    rows = [tick(bitcoin, n, 60000.0 + n, event_time_ns=n) for n in range(1, 101)]
    first = node.ticks(rows)
    assert (first.accepted, first.duplicates, first.refused) == (100, 0, 0)
    assert node.count() == before + 100 and node.count(market=bitcoin) == 100 and node.count(market=ether) == 0
    is_checked("ticks, count")

    said_again = node.ticks(rows, again=node.request - 1)
    assert (said_again.tx, said_again.accepted) == (first.tx, 100), "a request that is said again is not executed again"
    repeat = node.ticks(rows)
    assert (repeat.accepted, repeat.duplicates) == (0, 100) and repeat.tx > first.tx
    is_checked("a repeated request, duplicates")

    refused(ID_CONFLICT, lambda: node.ticks([tick(bitcoin, 200, 1.0), tick(bitcoin, 7, 1.0)]), first_bad=1)
    refused(PRICE_NOT_FINITE, lambda: node.ticks([tick(bitcoin, 201, float("nan"))]), first_bad=0)
    partial = node.ticks([tick(bitcoin, 7, 1.0), tick(bitcoin, 8, 60008.0, event_time_ns=8), tick(ether, 1, 5.0)], partial=True)
    assert (partial.accepted, partial.duplicates, partial.refused) == (1, 1, 1)
    assert partial.verdicts == (ID_CONFLICT, 0xFFFF, 0) and partial.first_bad == 0
    is_checked("a conflict, a bad row, a verdict per row")

    assert node.count(as_of=first.tx) == before + 100 and node.count(as_of=first.tx - 1) == before
    assert node.count(as_of=node.now()) == node.count(min_tx=partial.tx) == before + 101
    refused(FUTURE, lambda: node.count(as_of=node.now() + (3_600_000 << 16)))
    is_checked("counts as of a moment, and a moment too far ahead")

    refused(SESSION_GAP, lambda: node.ticks(rows, again=node.request + 1))
    refused(UNKNOWN_KIND, lambda: node.ask(132))
    is_checked("a gap in a session, a kind that only a node speaks")

    assert node.register(above(77, 61000.0, "python:{BTC}USD")) == 1
    assert node.register(above(77, 61000.0, "python:{BTC}USD")) == 0, "the same question is there already"
    node.subscribe(session=9, reflex=77, credit=1)
    prices = [60999.0, 61001.0, 61002.0, 60000.0, 61003.0]
    fired = node.ticks([tick(bitcoin, 300 + n, price) for n, price in enumerate(prices)])
    (one,) = node.firings()
    assert (one.reflex, one.tx, one.n, one.kind, one.value, one.basis) == (77, fired.tx, 1, 1, 61001.0, 60999.0)
    assert one.tick == tick(bitcoin, 301, 61001.0) and one.slot == (bitcoin >> 48) & 0xFFF
    assert 0 < one.received_ns <= one.durable_ns <= one.fired_ns
    node.grant(session=9, credit=1)
    (two,) = node.firings()
    assert (two.tx, two.n, two.value) == (fired.tx, 4, 61003.0), "an edge fires once"
    is_checked("a band, its firings, credit")

    other = Node(host, int(port))
    other.subscribe(session=1, after=(one.tx, one.n, one.reflex))
    assert other.firings()[0][:3] == two[:3], "a subscriber goes on behind the last firing it saw"
    other.close()
    assert node.remove(77, 78) == 1
    is_checked("resuming behind a firing, removing")
    node.close()
    print("all that was checked holds")


if __name__ == "__main__":
    main(sys.argv[1])
