"""Walks tables page by page, with random filters, orders and page sizes, and reads rows by random keys; compares with
DuckDB, row by row, in order.

    rows.py URL FOLDER PARTS CONFIG SEED CASES

FOLDER and PARTS are both served. Some of FOLDER's tables are written to PARTS again, as several Parquet files each, of
small row groups. CONFIG is the server's quern.yaml, which is written to declare random columns as keys.

Prints one JSON object a case: {"name":…,"problems":[…]}.
"""

import datetime as dt
import io
import json
import os
import random
import re
import sys
import time
import urllib.parse
import urllib.request

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from compare import arrow_rows, get, quoted, table_name, theirs_for
from values import comparable

# Larger tables are walked elsewhere, by counts.
MOST_ROWS = 20_000
# No case reads more pages.
MOST_PAGES = 60
KINDS = {"BIGINT": "number", "DOUBLE": "number", "VARCHAR": "text", "BOOLEAN": "truth", "DATE": "date"}


class Column:
    def __init__(self, name, kind, values):
        self.name, self.kind, self.values = name, kind, values

    @property
    def filtered(self):
        """As filters and orders spell it."""
        if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.name) and self.name not in ("AND", "OR", "NOT"):
            return self.name
        return f'"{self.name}"'


def kind_of(column):
    kind = KINDS.get(column["type"])
    return "time" if kind is None and column["type"].startswith("TIMESTAMP(") else kind


def literal(value, kind):
    """A value as filters spell it, and as SQL does."""
    if kind == "truth":
        return str(value).lower(), str(value).lower()
    if kind == "number":
        return repr(value), repr(value)
    text = value.isoformat() if isinstance(value, (dt.date, dt.datetime)) else value
    return f'"{text}"', ("TIMESTAMP " if kind == "time" else "DATE " if kind == "date" else "") + "'" + text.replace("'", "''") + "'"


def usable(value):
    if isinstance(value, str):
        return value.isprintable() and '"' not in value and "\\" not in value and len(value) < 100
    if isinstance(value, float):
        # Exponents are not in the grammar of filters.
        return value == value and "e" not in repr(value) and "inf" not in repr(value)
    return True


def condition(rng, columns):
    """A condition in both languages."""
    column = rng.choice(columns)
    ours, theirs = column.filtered, quoted(column.name)
    if rng.random() < 0.1 or not column.values:
        return rng.choice([(f"{ours} = null", f"{theirs} IS NULL"), (f"{ours} != null", f"{theirs} IS NOT NULL"),
                           (f"{ours}:*", f"{theirs} IS NOT NULL")])
    value = rng.choice(column.values)
    a, b = literal(value, column.kind)
    choice = rng.random()
    if choice < 0.15:
        more = [literal(v, column.kind) for v in rng.choices(column.values, k=rng.randint(1, 4))]
        return f"in({ours}, {', '.join(m[0] for m in more)})", f"{theirs} IN ({', '.join(m[1] for m in more)})"
    if column.kind == "text" and choice < 0.5:
        part = value[rng.randrange(len(value) + 1):][:rng.randint(0, 4)]
        a, b = literal(part, "text")
        return rng.choice([
            (f"contains({ours}, {a})", f"contains({theirs}, {b})"),
            (f"startsWith({ours}, {a})", f"starts_with({theirs}, {b})"),
            (f"endsWith({ours}, {a})", f"ends_with({theirs}, {b})"),
            (f"equalsIgnoreCase({ours}, {literal(value.upper(), 'text')[0]})", f"lower({theirs}) = lower({literal(value.upper(), 'text')[1]})"),
            (f"lower({ours}) = {literal(value.lower(), 'text')[0]}", f"lower({theirs}) = {literal(value.lower(), 'text')[1]}"),
        ])
    if column.kind in ("date", "time") and choice > 0.6:
        span, theirs_span = rng.choice([("0s", "0 seconds"), ("20s", "20 seconds"), ("1.5h", "90 minutes"), ("1h30m", "90 minutes"),
                                        ("36h", "36 hours"), ("7d", "7 days"), ("250ms", "250 milliseconds"), ("0.25ms", "250 microseconds")])
        function, sign = rng.choice([("plus", "+"), ("minus", "-")])
        operator = rng.choice(["=", "!=", "<", "<=", ">", ">="])
        moment = f"(TIMESTAMP '{value.isoformat()}' {sign} INTERVAL '{theirs_span}')"
        return f"{ours} {operator} {function}({a}, {span})", f"CAST({theirs} AS TIMESTAMP) {operator} {moment}"
    if column.kind in ("date", "time") and choice < 0.3:
        return f"year({ours}) <= {value.year}", f"year({theirs}) <= {value.year}"
    operators = ["=", "!="] if column.kind == "truth" else ["=", "!=", "<", "<=", ">", ">="]
    operator = rng.choice(operators)
    if isinstance(value, float) and operator in (">", ">="):
        # DuckDB puts NaN above all numbers; filters follow IEEE 754.
        return f"{ours} {operator} {a}", f"({theirs} {operator} {b} AND NOT isnan({theirs}))"
    return f"{ours} {operator} {a}", f"{theirs} {operator} {b}"


def tree(rng, columns, depth):
    if depth == 0 or rng.random() < 0.4:
        return condition(rng, columns)
    if rng.random() < 0.25:
        ours, theirs = tree(rng, columns, depth - 1)
        return f"NOT ({ours})", f"NOT ({theirs})"
    joint = rng.choice(["AND", "OR"])
    parts = [tree(rng, columns, depth - 1) for _ in range(rng.randint(2, 3))]
    return f" {joint} ".join(f"({p[0]})" for p in parts), f" {joint} ".join(f"({p[1]})" for p in parts)


def walk(url, table, arguments):
    """All pages' rows, following the links; the schema of the first page; what each page says is the number of rows."""
    rows, schema, pages, totals = [], None, 0, []
    path = f"/v1/tables/{table}/rows?" + urllib.parse.urlencode(arguments | {"format": "arrow"})
    while path:
        try:
            with urllib.request.urlopen(url + path) as response:
                page = pa.ipc.open_stream(io.BytesIO(response.read())).read_all()
                totals.append(response.headers.get("Quern-Total-Size"))
                link = re.fullmatch('<(.*)>; rel="next"', response.headers.get("Link") or "")
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{error.code} {error.read().decode()[:500]}") from None
        if schema is not None and page.schema != schema:
            raise RuntimeError(f"page {pages} has another schema")
        if len(page) > arguments["page_size"] or (link and len(page) < arguments["page_size"]):
            raise RuntimeError(f"page {pages} has {len(page)} rows of {arguments['page_size']}")
        rows += arrow_rows(page)
        schema, pages, path = page.schema, pages + 1, link and link[1]
    return rows, schema, totals


def load(url, folder, duck):
    """The tables that are compared: name, columns, row count. DuckDB gets each with the number of its rows."""
    files = sorted(f for f in os.listdir(folder) if f.rsplit(".", 1)[1] in ("json", "csv", "tsv", "parquet", "arrow"))
    names = [table_name(f) for f in files]
    for file, name in zip(files, names):
        if names.count(name) > 1:
            name += "_" + file.rsplit(".", 1)[1]
        table = get(url, f"/v1/tables/{name}")
        if not 0 < int(table["rowCount" if "rowCount" in table else "row_count"]) <= MOST_ROWS:
            continue
        theirs, problems = theirs_for(duck, os.path.join(folder, file), table)
        if problems:
            raise RuntimeError(f"{name}: {problems}")
        # DuckDB keeps numbers among texts as JSON; as text they are what ours are.
        texts = [quoted(c) for c, t in zip(theirs.columns, theirs.types) if str(t) == "JSON"]
        texts = " REPLACE (" + ", ".join(f"{c} ->> '$' AS {c}" for c in texts) + ")" if texts else ""
        duck.execute(f'CREATE TABLE {quoted(name)} AS SELECT *{texts}, row_number() OVER () AS "the row" FROM theirs')
        columns = []
        for column in table["columns"]:
            kind = kind_of(column)
            if kind and '"' not in column["name"]:
                sample = duck.execute(f"SELECT DISTINCT {quoted(column['name'])} FROM {quoted(name)} LIMIT 200").fetchall()
                columns.append(Column(column["name"], kind, [v for (v,) in sample if v is not None and usable(v)]))
        if columns:
            yield name, columns, len(theirs)


def split(duck, parts, name, size):
    """Writes a table as three Parquet files in a folder of their own, and returns its new name."""
    folder = os.path.join(parts, name + "_parts")
    os.makedirs(folder)
    for number in range(3):
        rows = f'"the row" > {size * number // 3} AND "the row" <= {size * (number + 1) // 3}'
        select = f'SELECT * EXCLUDE "the row" FROM {quoted(name)} WHERE {rows} ORDER BY "the row"'
        duck.execute(f"COPY ({select}) TO '{folder}/{number}.parquet' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
    return os.path.basename(folder)


def case(url, duck, rng, name, columns, size, source):
    ours, theirs = tree(rng, columns, 2) if rng.random() < 0.8 else ("", "true")
    order = rng.sample(columns, k=min(rng.choice([0, 0, 1, 2]), len(columns)))
    terms = [(column, rng.random() < 0.5) for column in order]
    wanted = rng.sample(columns, k=rng.randint(1, len(columns)))
    arguments = {
        "filter": ours,
        "order_by": ", ".join(c.filtered + (" desc" if down else "") for c, down in terms),
        "fields": ",".join(c.filtered for c in wanted),
        "page_size": max(size // MOST_PAGES + 1, rng.choice([1, 2, 7, 50, 1000, 10_000])),
    }
    sql = ", ".join([quoted(c.name) + (" DESC" if down else "") + " NULLS LAST" for c, down in terms] + ['"the row"'])
    answer = duck.execute(f"SELECT {', '.join(quoted(c.name) for c in wanted)} FROM {quoted(source)} WHERE {theirs} ORDER BY {sql}")
    expected = answer.fetchall()
    if rng.random() < 0.5:
        arguments["count"] = "exact"
    rows, schema, totals = walk(url, name, arguments)
    if set(totals) != {str(len(expected)) if "count" in arguments else None}:
        return [f"{arguments}: the pages count {set(totals)} rows, DuckDB has {len(expected)}"]
    found = differs(rows, expected, [f.type for f in schema])
    return [f"{arguments}: {found}"] if found else []


def differs(rows, expected, types):
    """Where two lists of rows differ, their order included, or None."""
    if len(rows) != len(expected):
        return f"{len(rows)} rows, DuckDB has {len(expected)}"
    for number, (a, b) in enumerate(zip(rows, expected)):
        if a != b and [comparable(v, t) for v, t in zip(a, types)] != [comparable(v, t) for v, t in zip(b, types)]:
            return f"row {number} is {a}, DuckDB's is {b}"
    return None


def declare(url, config, rng, tables):
    """Declares a key for each table, unique or not, and waits until that is in force. Returns them by table."""
    keys = {}
    for name, columns, _, _ in tables:
        most = max(columns, key=lambda column: len(column.values))
        keys[name] = [most] if rng.random() < 0.5 else rng.sample(columns, k=min(rng.choice([1, 2, 3]), len(columns)))
    with open(config + ".new", "w", encoding="utf-8") as out:
        json.dump({"tables": {name: {"key": [c.name for c in key]} for name, key in keys.items()}}, out)
    os.rename(config + ".new", config)
    for _ in range(100):
        if all(get(url, f"/v1/tables/{name}")["key"] == [c.name for c in key] for name, key in keys.items()):
            return keys
        time.sleep(0.1)
    raise RuntimeError("the keys are not in force after 10 s")


def spell(values):
    """A key as requests spell it."""
    parts = [str(v).lower() if isinstance(v, bool) else v.isoformat() if isinstance(v, (dt.date, dt.datetime)) else
             v if isinstance(v, str) else repr(v) for v in values]
    return parts[0] if len(parts) == 1 else "~".join(p.replace("%", "%25").replace("~", "%7E") for p in parts)


def possible(value):
    """Whether a value can be a key's."""
    if isinstance(value, float):
        return value - value == 0
    return value is not None and not (isinstance(value, str) and "\0" in value)


def by_key(url, duck, rng, name, columns, size, source, key):
    """Reads rows by key: those of some rows, some twice, and of some mixtures, which may be nobody's."""
    listed = ", ".join(quoted(c.name) for c in key)
    places = ", ".join(str(rng.randint(1, size)) for _ in range(rng.choice([1, 3, 20])))
    drawn = duck.execute(f'SELECT {listed} FROM {quoted(source)} WHERE "the row" IN ({places})').fetchall()
    drawn += [tuple(rng.choice(drawn)[at] for at in range(len(key))) for _ in range(rng.randint(0, 4))]
    drawn = [values for values in drawn if all(map(possible, values))]
    if rng.random() < 0.3 and key[0].kind == "number":
        drawn += [(rng.choice([-987654321, 0.125, 3.0, 12345678901234567890]), *values[1:]) for values in drawn[:2]]
    drawn += [values for values in drawn if rng.random() < 0.2]
    rng.shuffle(drawn)
    if not drawn:
        return []
    wanted = rng.sample(columns, k=rng.randint(1, len(columns)))
    expected, missing, twice = [], [], False
    for number, values in enumerate(drawn):
        where = " AND ".join(f"{quoted(c.name)} = {literal(v, c.kind)[1]}" for c, v in zip(key, values))
        found = duck.execute(f"SELECT {', '.join(quoted(c.name) for c in wanted)} FROM {quoted(source)} WHERE {where}").fetchall()
        twice = twice or len(found) > 1
        expected += found[:1]
        missing += [] if found else [number]
    keys = [spell(values) for values in drawn]
    body = {"keys": keys, "fields": ",".join(c.filtered for c in wanted), "format": "arrow"}
    request = urllib.request.Request(f"{url}/v1/tables/{name}/rows:batchGet", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request) as response:
            table = pa.ipc.open_stream(io.BytesIO(response.read())).read_all()
            told = [int(n) for n in (response.headers.get("Quern-Missing") or "").split(",") if n]
    except urllib.error.HTTPError as error:
        answer = error.read().decode()
        return [] if twice and "KEY_NOT_UNIQUE" in answer else [f"{body}: {error.code} {answer[:500]}"]
    if twice:
        return [f"{body}: several rows have one of the keys {[c.name for c in key]}, and no word of it"]
    if told != missing:
        return [f"{body}: {told} are said to be missing, {missing} are"]
    if found := differs(arrow_rows(table), expected, [f.type for f in table.schema]):
        return [f"{body}: {found}"]
    request = urllib.request.Request(f"{url}/v1/tables/{name}/rows:batchGet", json.dumps(body | {"format": "json"}).encode())
    with urllib.request.urlopen(request) as response:
        envelope = json.load(response)
    if envelope["missing"] != [keys[n] for n in missing] or len(envelope["rows"]) != len(expected):
        return [f"{body}: json has {len(envelope['rows'])} rows and misses {envelope['missing']}"]
    return []


def floats(duck, parts, rng):
    """A table of floats that statistics and orders easily get wrong."""
    values = [rng.choice([float("nan"), -0.0, 0.0, float("inf"), float("-inf"), None, 1.5, -2.25, 7.0]) for _ in range(500)]
    drawn = pa.table({"id": range(500), "x": pa.array(values, pa.float64()), "y": pa.array(reversed(values), pa.float32())})
    pq.write_table(drawn, os.path.join(parts, "floats.parquet"), row_group_size=7)
    duck.execute('CREATE TABLE floats AS SELECT *, row_number() OVER () AS "the row" FROM drawn')
    return "floats", [Column("id", "number", [3, 250, 499]), Column("x", "number", [1.5, -2.25, 0.0]), Column("y", "number", [7.0])], 500


def moments(duck, parts, rng):
    """A table of times in several units; what they are compared with may be finer."""
    start, span = dt.datetime(2024, 2, 28), 4 * 86_400 * 1_000_000
    values = [rng.choice([start + dt.timedelta(microseconds=rng.randrange(span)), start + dt.timedelta(hours=rng.randrange(96)), None])
              for _ in range(400)]
    whole = [v and v.replace(microsecond=v.microsecond // 1000 * 1000) for v in values]
    drawn_times = pa.table({
        "id": range(400), "ms": pa.array(whole, pa.timestamp("ms")), "us": pa.array(values, pa.timestamp("us")),
        "ns": pa.array(values, pa.timestamp("ns")), "zoned": pa.array(values, pa.timestamp("ms", "UTC"), safe=False),
        "day": pa.array([v and v.date() for v in reversed(values)], pa.date32()),
    })
    pq.write_table(drawn_times, os.path.join(parts, "moments.parquet"), row_group_size=50)
    duck.execute('CREATE TABLE moments AS SELECT *, row_number() OVER () AS "the row" FROM drawn_times')
    fine = [v for v in values if v]
    times = [Column(name, "time", fine) for name in ("ms", "us", "ns", "zoned")]
    return "moments", [Column("id", "number", [3, 99]), *times, Column("day", "date", [v.date() for v in fine])], 400


def main(url, folder, parts, config, seed, cases):
    rng, duck = random.Random(int(seed)), duckdb.connect()
    tables = [(*table, table[0]) for table in load(url, folder, duck)]
    for name, columns, size, _ in tables[::3]:
        tables.append((split(duck, parts, name, size), columns, size, name))
    # As many walks as of a tenth of the tables.
    tables += [(*floats(duck, parts, rng), "floats"), (*moments(duck, parts, rng), "moments")] * (len(tables) // 10)
    keys = declare(url, config, rng, tables)
    for number in range(int(cases)):
        name, columns, size, source = rng.choice(tables)
        try:
            if number % 3 == 2:
                problems = by_key(url, duck, rng, name, columns, size, source, keys[name])
            else:
                problems = case(url, duck, rng, name, columns, size, source)
        except Exception as error:  # pylint: disable=broad-except
            problems = [f"{type(error).__name__}: {error}"]
        print(json.dumps({"name": f"{number}-{name}", "problems": problems}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
