"""Compares what a running Quern answers with what DuckDB reads from the same files, value by value.

    compare.py URL tables FOLDER             every table, through JSON, CSV, Arrow and Parquet
    compare.py URL queries FOLDER FILE.sql…  each query on the folder's Parquet files

Prints one JSON object a table or query: {"name":…,"problems":[…]}.
"""

import io
import json
import os
import re
import sys
import urllib.request
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet

from values import comparable, csv_rows, from_csv, from_json, is_text

# DuckDB's type of a column and ours may differ in these ways, and only these.
SAME = {
    "BIGINT": {"BIGINT", "HUGEINT", "INTEGER"},
    "UBIGINT": {"UBIGINT"},
    "DOUBLE": {"DOUBLE"},
    "VARCHAR": {"VARCHAR", "JSON"},
    "BOOLEAN": {"BOOLEAN"},
    "DATE": {"DATE"},
    "TIMESTAMP": {"TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"},
    "TIMESTAMPTZ": {"TIMESTAMP WITH TIME ZONE"},
}
# A column that Quern's rules keep as text is read as text by DuckDB too.
KEPT_AS_TEXT = {"DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "UUID", "BIGINT", "DOUBLE"}


# Tables of more rows are compared in DuckDB, not in Python.
LARGE = 200_000


def ask(url, sql, form):
    body = json.dumps({"sql": sql, "format": form, "timeout": "300s"}).encode()
    request = urllib.request.Request(url + "/v1/query", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{form}: {error.code} {error.read().decode()[:500]}") from None


def get(url, path):
    with urllib.request.urlopen(url + path) as response:
        return json.load(response)


def reader(path, text_columns=()):
    """The DuckDB expression that reads a file by the rules that Quern states: every row counts for types, and
    strings in JSON are text, never dates."""
    name = path.replace("'", "''")
    extension = path.rsplit(".", 1)[1]
    if extension == "json":
        return (f"read_json('{name}', sample_size=-1, maximum_object_size=268435456, map_inference_threshold=-1, "
                "dateformat='no dates', timestampformat='no times')")
    if extension in ("csv", "tsv"):
        types = ", ".join("'{}': 'VARCHAR'".format(c.replace("'", "''")) for c in text_columns)
        return f"read_csv('{name}', sample_size=-1, types={{{types}}})" if types else f"read_csv('{name}', sample_size=-1)"
    return f"read_parquet('{name}')"


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def theirs_for(duck, path, table):
    """DuckDB's rows and types for a file, and what is wrong with our columns."""
    if path.endswith(".arrow"):
        with open(path, "rb") as file:
            arrow = pa.ipc.open_file(file).read_all()
        relation = duck.from_arrow(arrow)
        return relation, names_differ(relation.columns, table)
    sniffed = duck.sql(f"SELECT * FROM {reader(path)}")
    problems = names_differ(sniffed.columns, table)
    if problems:
        return sniffed, problems
    as_text, select = [], []
    for column, kind in zip(table["columns"], map(str, sniffed.types)):
        name, ours = column["name"], column["type"]
        if ours == "VARCHAR" and kind in KEPT_AS_TEXT and kind not in SAME["VARCHAR"] and not path.endswith("parquet"):
            if kind in ("BIGINT", "DOUBLE"):
                problems.append(f"column {name}: ours is text, DuckDB's is {kind}")
            as_text.append(name)
        elif ours in SAME and kind not in SAME[ours]:
            problems.append(f"column {name}: ours is {ours}, DuckDB's is {kind}")
        select.append(quoted(name))
    relation = duck.sql(f"SELECT {', '.join(select)} FROM {reader(path, as_text)}")
    return relation, problems


def names_differ(columns, table):
    ours = [c["name"] for c in table["columns"]]
    return [] if list(columns) == ours else [f"columns differ: ours {ours}, DuckDB's {list(columns)}"]


def ours_through(url, sql):
    """Our rows of one query through each format, by format, with the Arrow schema."""
    arrow = pa.ipc.open_stream(io.BytesIO(ask(url, sql, "arrow"))).read_all()
    kinds = [f.type for f in arrow.schema]
    names = arrow.schema.names
    yield "arrow", arrow_rows(arrow)
    yield "parquet", arrow_rows(pa.parquet.read_table(io.BytesIO(ask(url, sql, "parquet"))))
    lines = ask(url, sql, "ndjson").splitlines()
    parsed = (json.loads(line, parse_float=Decimal) for line in lines)
    yield "ndjson", [tuple(from_json(row[n], k) for n, k in zip(names, kinds)) for row in parsed]
    envelope = json.loads(ask(url, sql, "json"), parse_float=Decimal)
    if envelope["receipt"]["rows"] != len(envelope["rows"]):
        raise RuntimeError(f"the receipt says {envelope['receipt']['rows']} rows, there are {len(envelope['rows'])}")
    yield "json", [tuple(from_json(row[n], k) for n, k in zip(names, kinds)) for row in envelope["rows"]]
    header, *rows = csv_rows(ask(url, sql, "csv"))
    if list(header) != names:
        raise RuntimeError(f"csv: the header is {header}, want {names}")
    yield "csv", [tuple(from_csv(f, k) for f, k in zip(row, kinds)) for row in rows]


def arrow_rows(table):
    return list(zip(*(column.to_pylist() for column in table.columns)))


def difference(ours, theirs, types, close=False):
    """What differs between two lists of rows, without regard to their order."""
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, DuckDB has {len(theirs)}"
    if ours == theirs:
        return None
    ours, theirs = ([tuple(comparable(v, t) for v, t in zip(row, types)) for row in rows] for rows in (ours, theirs))
    if ours == theirs:
        return None
    ours, theirs = sorted(ours, key=sort_key), sorted(theirs, key=sort_key)
    for number, (a, b) in enumerate(zip(ours, theirs)):
        if a != b and not (close and all(nearly(x, y) for x, y in zip(a, b))):
            cells = [(x, y) for x, y in zip(a, b) if x != y]
            return f"row {number} in order differs: ours {cells[0][0]!r:.200}, DuckDB's {cells[0][1]!r:.200}"
    return None


def sort_key(row):
    return repr(tuple(round(v, 6) if isinstance(v, (float, Decimal)) else v for v in row))


def nearly(a, b):
    """Equal, or an average that one side gives as a decimal and the other as a double."""
    if a == b:
        return True
    mixed = isinstance(a, (float, Decimal)) and isinstance(b, (float, Decimal)) and float in (type(a), type(b))
    return mixed and abs(float(a) - float(b)) <= 1e-6 * max(1.0, abs(float(b)))


def table_name(file):
    return re.sub("[^a-z0-9]+", "_", file.rsplit(".", 1)[0].lower())


def compare_tables(url, folder):
    files = sorted(f for f in os.listdir(folder) if f.rsplit(".", 1)[1] in ("json", "csv", "tsv", "parquet", "arrow"))
    names = [table_name(f) for f in files]
    for file, name in zip(files, names):
        if names.count(name) > 1:
            name += "_" + file.rsplit(".", 1)[1]
        problems = []
        try:
            duck = duckdb.connect()
            table = get(url, f"/v1/tables/{name}")
            if table["state"] != "STATE_READY":
                raise RuntimeError(json.dumps(table.get("problem")))
            theirs, problems = theirs_for(duck, os.path.join(folder, file), table)
            sql = f"SELECT * FROM {name}"
            if not problems and len(theirs) > LARGE:
                problems = compare_large(duck, url, sql, theirs)
            elif not problems:
                rows = theirs.fetchall()
                for form, ours in ours_through(url, sql):
                    if found := difference(ours, rows, theirs.types):
                        problems.append(f"{form}: {found}")
        except Exception as error:  # noqa: BLE001 - one table's failure is a finding, not the end.
            problems.append(f"{type(error).__name__}: {error}")
        print(json.dumps({"name": name, "problems": problems}), flush=True)


def compare_large(duck, url, sql, theirs):
    """Compares in DuckDB instead of row by row: Arrow, Parquet, NDJSON and CSV as pyarrow reads them. The JSON
    envelope and array must hold the NDJSON lines, byte for byte, in any order."""
    arrow = pa.ipc.open_stream(io.BytesIO(ask(url, sql, "arrow"))).read_all()
    lines = ask(url, sql, "ndjson")
    plain = pa.schema([pa.field(f.name, pa.string() if is_text(f.type) else f.type) for f in arrow.schema])
    csv_options = pa.csv.ConvertOptions(column_types=plain, strings_can_be_null=True, quoted_strings_can_be_null=False)
    ours = {
        "arrow": arrow,
        "parquet": pa.parquet.read_table(io.BytesIO(ask(url, sql, "parquet"))),
        "ndjson": pa.json.read_json(io.BytesIO(lines), parse_options=pa.json.ParseOptions(explicit_schema=plain)),
        "csv": pa.csv.read_csv(io.BytesIO(ask(url, sql, "csv")), convert_options=csv_options),
    }
    problems = []
    theirs.create_view("theirs")
    for form, table in ours.items():
        duck.register("ours", table)
        for here, there in (("ours", "theirs"), ("theirs", "ours")):
            [(count,)] = duck.sql(f"SELECT count(*) FROM (FROM {here} EXCEPT ALL FROM {there})").fetchall()
            if count:
                problems.append(f"{form}: {count} rows of {here} are not among {there}")
    rows = sorted(lines.splitlines())
    for form in ("json-array", "json"):
        body = ask(url, sql, form)
        body = body[body.index(b"[") + 1 : body.rindex(b"]")]
        if sorted(body.replace(b"},{", b"}\n{").splitlines()) != rows:
            problems.append(f"{form}: other rows than ndjson")
    return problems


def compare_queries(url, folder, paths):
    duck = duckdb.connect()
    for file in os.listdir(folder):
        if file.endswith(".parquet"):
            duck.sql(f"CREATE VIEW {file.removesuffix('.parquet')} AS SELECT * FROM '{os.path.join(folder, file)}'")
    for path in paths:
        problems = []
        with open(path, encoding="utf-8") as file:
            sql = file.read()
        try:
            relation = duck.sql(sql)
            theirs = relation.fetchall()
            for form, ours in ours_through(url, sql):
                if found := difference(ours, theirs, relation.types, close=True):
                    problems.append(f"{form}: {found}")
        except Exception as error:  # noqa: BLE001
            problems.append(f"{type(error).__name__}: {error}")
        print(json.dumps({"name": os.path.basename(path).removesuffix(".sql"), "problems": problems}), flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "tables":
        compare_tables(sys.argv[1], sys.argv[3])
    else:
        compare_queries(sys.argv[1], sys.argv[3], sys.argv[4:])
