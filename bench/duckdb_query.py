"""Runs a statement, a JSON string on each line of standard input, on views of Parquet files; prints the seconds that it took
with all rows fetched to Python, and how many rows that were.

    duckdb_query.py FILE.parquet…    views are named as Quern names tables: flights-3m.parquet is flights_3m
"""

import json
import os
import pathlib
import re
import sys
import time

import duckdb

# Quern's engine computes at nice 10: where others use the machine as well, they weigh on both alike.
os.nice(10)
connection = duckdb.connect(config={"threads": os.cpu_count()})
for name in sys.argv[1:]:
    view = re.sub("[^a-z0-9]", "_", pathlib.Path(name).stem.lower())
    connection.read_parquet(name).create_view(view)
for line in sys.stdin:
    sql = json.loads(line)
    started = time.perf_counter()
    rows = connection.execute(sql).fetchall()
    seconds = time.perf_counter() - started
    print(seconds, len(rows), flush=True)
