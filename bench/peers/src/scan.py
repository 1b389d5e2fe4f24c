"""DuckDB over a CSV of ticks: VWAP by market and 1-minute bars, one thread, median of five, as one line of JSON."""

import json
import statistics
import sys
import time

import duckdb

VWAP = "SELECT market, sum(price * volume) / sum(volume) FROM ticks GROUP BY market"
BARS = """SELECT market, event_time_ns // 60000000000 AS minute, count(*), arg_min(price, event_time_ns), max(price),
          min(price), arg_max(price, event_time_ns), sum(volume), sum(price * volume) / sum(volume)
          FROM ticks GROUP BY market, minute"""


def main(csv, database):
    """Loads the file into a table of the database, then asks."""
    con = duckdb.connect(database)
    con.execute("SET enable_progress_bar = false")
    con.execute("CREATE TABLE ticks (market UBIGINT, event_time_ns BIGINT, price DOUBLE, volume DOUBLE)")
    con.execute(f"COPY ticks FROM '{csv}' (FORMAT csv, HEADER false)")
    con.execute("CHECKPOINT")
    con.execute("SET threads = 1")

    def median_ms(query):
        taken = []
        for _ in range(6):
            start = time.perf_counter()
            con.execute(query).fetchall()
            taken.append((time.perf_counter() - start) * 1e3)
        return statistics.median(taken[1:])

    rows = con.execute("SELECT count(*) FROM ticks").fetchone()[0]
    print(json.dumps({"version": duckdb.__version__, "rows": rows, "vwap_ms": median_ms(VWAP), "bars_ms": median_ms(BARS)}))


main(sys.argv[1], sys.argv[2])
