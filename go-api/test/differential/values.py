"""Values that can be compared, from DuckDB's Python values and from Quern's four kinds of output.

A value's type comes from the Arrow schema of Quern's answer, so that text such as `1.10` in JSON or CSV is read
as the decimal, date or time that it stands for, and as nothing else.
"""

import base64
import csv
import datetime as dt
import io
import json
import math
import re
import struct
from decimal import Decimal

import pyarrow as pa

csv.field_size_limit(1 << 30)

FIELD = re.compile(r'("(?:[^"]|"")*"|[^,\r\n]*)(,|\r?\n|\Z)')


def from_json(value, kind):
    """Reads a JSON value as the Arrow type says; floats must be parsed as Decimal beforehand."""
    if value is None:
        return None
    if pa.types.is_float32(kind):
        return struct.unpack("f", struct.pack("f", float(value)))[0]
    if pa.types.is_floating(kind):
        return float(value)
    if pa.types.is_decimal(kind):
        return Decimal(value)
    if pa.types.is_date(kind):
        return dt.date.fromisoformat(value)
    if pa.types.is_timestamp(kind):
        return dt.datetime.fromisoformat(value)
    if pa.types.is_binary(kind):
        return base64.b64decode(value)
    if pa.types.is_struct(kind):
        return {f.name: from_json(value[f.name], f.type) for f in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [from_json(element, kind.value_type) for element in value]
    if pa.types.is_integer(kind) and not isinstance(value, int):
        raise TypeError(f"{value!r} in a column of {kind}")
    if pa.types.is_boolean(kind) and not isinstance(value, bool):
        raise TypeError(f"{value!r} in a column of {kind}")
    if is_text(kind) and not isinstance(value, str):
        raise TypeError(f"{value!r} in a column of {kind}")
    return value


def from_csv(text, kind):
    """Reads a CSV field; None stands for an empty field without quotes."""
    if text is None:
        return None
    if pa.types.is_integer(kind):
        return int(text)
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}[text]
    if pa.types.is_struct(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return from_json(json.loads(text, parse_float=Decimal), kind)
    if is_text(kind):
        return text
    return from_json(text, kind)


def is_text(kind):
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def csv_rows(body):
    """Splits RFC 4180 text, telling an empty field (None) from a quoted empty one, as Python's csv can't."""
    text = body.decode("utf-8")
    rows, row, end = [], [], len(text)
    for match in FIELD.finditer(text):
        if match.start() == end and not row:
            break
        field = match.group(1)
        if field.startswith('"'):
            field = field[1:-1].replace('""', '"')
        elif field == "":
            field = None
        row.append(field)
        if match.group(2) != ",":
            rows.append(tuple(row))
            row = []
    # The standard reader must see the same texts.
    if len(text) < 1 << 20:
        standard = [r or [""] for r in csv.reader(io.StringIO(text, newline=""))]
        assert [[f or "" for f in r] for r in rows] == standard, "Python's csv reads the body differently"
    return rows


def comparable(value, duck):
    """Brings a value of either side to one form. `duck` is DuckDB's type of that place."""
    if value is None:
        return None
    if isinstance(value, float):
        return None if math.isnan(value) or math.isinf(value) else value
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
    name = str(duck)
    if name == "JSON":
        return json_text(value)
    if isinstance(value, dict):
        return {k: comparable(v, t) for (k, t) in children(duck) for v in [value.get(k)]} | {
            k: v for k, v in value.items() if k not in {c for c, _ in children(duck)}}
    if isinstance(value, list):
        element = duck.children[0][1] if duck.id in ("list", "array") else duck
        return [comparable(v, element) for v in value]
    return value


def children(duck):
    return duck.children if duck.id == "struct" else []


def json_text(value):
    """JSON text without regard to spaces; a JSON string is the string itself."""
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return parsed if isinstance(parsed, str) else json.dumps(parsed, separators=(",", ":"), sort_keys=True)
