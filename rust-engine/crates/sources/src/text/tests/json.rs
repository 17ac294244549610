//! The rules for JSON, one line each.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::{TextFormat, decode, infer, read, show, types};

const JSON: TextFormat = TextFormat::Json;

#[test]
fn types_follow_every_row() {
    let table = [
        // Framings.
        (r#"[{"a":1},{"a":2}]"#, "a:Int64", "1\n2"),
        ("{\"a\":1}\n{\"a\":2}\n", "a:Int64", "1\n2"),
        ("{\"a\":1}{\"a\":2}", "a:Int64", "1\n2"),
        ("{\n \"a\": 1\n}\n\n{\n \"a\": 2\n}", "a:Int64", "1\n2"),
        ("\u{feff}[{\"a\":1}]", "a:Int64", "1"),
        ("{\"a\":[1,2]}", "a:[Int64]", "[1, 2]"),
        ("[]", "", ""),
        (" \n ", "", ""),
        // Scalars.
        (r#"[{"a":null},{"a":"x"}]"#, "a:Utf8", "~\nx"),
        (r#"[{"a":1},{"a":2.5}]"#, "a:Float64", "1.0\n2.5"),
        (r#"[{"a":1},{"a":"x"},{"a":true},{"a":1.50}]"#, "a:Utf8", "1\nx\ntrue\n1.50"),
        (r#"[{"a":true},{"a":false}]"#, "a:Boolean", "true\nfalse"),
        (r#"[{"a":18446744073709551615}]"#, "a:UInt64", "18446744073709551615"),
        (r#"[{"a":-1},{"a":18446744073709551615}]"#, "a:Decimal128(20, 0)", "-1\n18446744073709551615"),
        (
            r#"[{"a":1},{"a":12345678901234567890123456789012345678}]"#,
            "a:Decimal128(38, 0)",
            "1\n12345678901234567890123456789012345678",
        ),
        (r#"[{"a":1234567890123456789012345678901234567890}]"#, "a:Float64", "1.2345678901234568e39"),
        (r#"[{"a":1e400},{"a":1}]"#, "a:Utf8", "1e400\n1"),
        (r#"[{"a":0.1},{"a":123456789.123456789e-20}]"#, "a:Float64", "0.1\n1.2345678912345678e-12"),
        (r#"[{"a":"2024-01-01"}]"#, "a:Utf8", "2024-01-01"),
        (r#"[{"a":"q\"\u00e9\ud83d\ude00\n"}]"#, "a:Utf8", "q\"é😀\n"),
        // Missing keys, order of keys.
        (r#"[{"a":1},{"b":2},{"b":3,"a":4},{}]"#, "a:Int64 b:Int64", "1|~\n~|2\n4|3\n~|~"),
        (r#"[{"a":1},null]"#, "a:Int64", "1\n~"),
        (r#"[{"a":null}]"#, "a:Utf8", "~"),
        (r#"[{"a":1,"A":2}]"#, "a:Int64 A:Int64", "1|2"),
        // Nested.
        (r#"[{"a":{"x":1}},{"a":{"y":"t"}},{"a":null}]"#, "a:{x:Int64 y:Utf8}", "{x: 1, y: ~}\n{x: ~, y: t}\n~"),
        (r#"[{"a":[1,2.5]},{"a":[]},{"a":[null]}]"#, "a:[Float64]", "[1.0, 2.5]\n[]\n[~]"),
        (r#"[{"a":[{"x":1},{"y":2}]}]"#, "a:[{x:Int64 y:Int64}]", "[{x: 1, y: ~}, {x: ~, y: 2}]"),
        (r#"[{"a":[[1], [2, 3]]}]"#, "a:[[Int64]]", "[[1], [2, 3]]"),
        (r#"[{"a":[]}]"#, "a:[Utf8]", "[]"),
        // Conflicts.
        (r#"[{"a":1},{"a":{"x": [ 1, 2 ]}},{"a":"s \" "}]"#, "a:json", "1\n{\"x\":[1,2]}\n\"s \\\" \""),
        (r#"[{"a":[1]},{"a":{"x":1}}]"#, "a:json", "[1]\n{\"x\":1}"),
        (r#"[{"a":[[1],2]}]"#, "a:[json]", "[[1], 2]"),
        (r#"[{"a":{}},{"a":null}]"#, "a:json", "{}\n~"),
        (r#"[{"a":{}},{"a":{"x":1}}]"#, "a:{x:Int64}", "{x: ~}\n{x: 1}"),
        // Rows that are no objects.
        ("[1,2.5,null]", "value:Float64", "1.0\n2.5\n~"),
        ("[[1],[2]]", "value:[Int64]", "[1]\n[2]"),
        ("\"a\"\n\"b\"", "value:Utf8", "a\nb"),
        ("1 2", "value:Int64", "1\n2"),
        (r#"[{"a":1},2]"#, "value:json", "{\"a\":1}\n2"),
        ("[null]", "value:Utf8", "~"),
    ];
    for (text, expected_types, expected_rows) in table {
        let batch = read(JSON, text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(types(&batch.schema()), expected_types, "{text}");
        assert_eq!(show(&batch), expected_rows, "{text}");
    }
}

#[test]
fn faults_name_the_row() {
    let table = [
        (r#"[{"a":1},{"a":2"#, Some(2), "truncated"),
        (r#"[{"a":1}"#, Some(2), "truncated"),
        ("{\"a\":1}\n{\"a\":", Some(2), "truncated"),
        (r#"[{"a":1},]"#, Some(2), "found `]`"),
        (r#"[{"a":1}] x"#, None, "nothing after the array"),
        (r#"[{"a":1}][{"a":2}]"#, None, "nothing after the array"),
        (r#"{"a":1},{"a":2}"#, Some(2), "comma"),
        (r#"[{"a":1} {"a":2}]"#, Some(2), "`,` or `]`"),
        (r#"[{"a":01}]"#, Some(1), "leading zeros"),
        (r#"[{"a":1.}]"#, Some(1), "a JSON number"),
        (r#"[{"a":-}]"#, Some(1), "a JSON number"),
        (r#"[{"a":NaN}]"#, Some(1), "a JSON value"),
        (r#"[{"a":'x'}]"#, Some(1), "a JSON value"),
        (r#"[{a:1}]"#, Some(1), "double quotes"),
        (r#"[{"a" 1}]"#, Some(1), "`:`"),
        (r#"[{"a":"\x"}]"#, Some(1), "bad escape"),
        (r#"[{"a":"\ud800"}]"#, Some(1), "bad escape"),
        ("[{\"a\":\"x\ty\"}]", Some(1), "control character"),
        (r#"[{"a":1},{"a":1,"a":2}]"#, Some(2), "twice"),
        (r#"[{"a":{"b":1,"b":2}}]"#, Some(1), "twice"),
        ("tru", Some(1), "a JSON value"),
    ];
    for (text, row, message) in table {
        let error = infer(JSON, text).err().unwrap_or_else(|| panic!("{text} was accepted"));
        assert_eq!(error.row, row, "{text}: {error}");
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
    let error = infer(JSON, r#"[{"a":{"b":[{"c":1,"c":2}]}}]"#).expect_err("a key twice");
    assert_eq!(error.column.as_deref(), Some("a.b[].c"));
}

#[test]
fn bounds_hold() {
    let deep = |levels: usize| format!("[{{\"a\":{}1{}}}]", "[".repeat(levels), "]".repeat(levels));
    assert!(infer(JSON, &deep(127)).is_ok());
    assert!(infer(JSON, &deep(128)).expect_err("too deep").message.contains("nested deeper"));
    assert!(infer(JSON, &"[".repeat(1_000_000)).is_err());

    let keys = |count: usize| (0..count).map(|key| format!("\"k{key}\":1")).collect::<Vec<_>>().join(",");
    let schema = |text: &str| types(&infer(JSON, text).expect("valid").schema);
    assert!(infer(JSON, &format!("{{{}}}", keys(10_000))).is_ok());
    assert!(infer(JSON, &format!("{{{}}}", keys(10_001))).expect_err("too wide").message.contains("10000 columns"));
    assert!(schema(&format!("{{\"m\":{{{}}}}}", keys(1_000))).starts_with("m:{"));
    assert_eq!(schema(&format!("{{\"m\":{{{}}}}}", keys(300_000))), "m:json");
}

#[test]
fn decoding_keeps_to_the_target() {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let text = r#"[{"a":1,"b":"2024-01-31","c":{"x":[1,{}]},"d":"2024-01-31T10:00:00+02:00"},{"b":null}]"#;
    let wide = Schema::new(vec![
        field("d", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
        field("missing", DataType::Struct(vec![field("x", DataType::Int64)].into())),
        field("b", DataType::Date32),
        field("a", DataType::Int8),
    ]);
    let batch = decode(JSON, text, wide.clone()).expect("fits");
    assert_eq!(batch.schema().fields(), wide.fields());
    assert_eq!(show(&batch), "2024-01-31T08:00:00Z|~|2024-01-31|1\n~|~|~|~");
    let none = decode(JSON, text, Schema::empty()).expect("rows alone");
    assert_eq!(none.num_rows(), 2);

    let others = [
        (DataType::LargeUtf8, "1"),
        (DataType::Utf8View, "1"),
        (DataType::Float32, "1.0"),
        (DataType::Decimal128(10, 2), "1.00"),
        (DataType::Decimal256(50, 2), "1.00"),
        (DataType::UInt64, "1"),
        (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), "1"),
    ];
    for (data_type, expected) in others {
        let batch = decode(JSON, r#"[{"a":1}]"#, Schema::new(vec![field("a", data_type.clone())])).expect("fits");
        assert_eq!(show(&batch), expected, "{data_type}");
        assert_eq!(batch.schema().field(0).data_type(), &data_type);
    }
}

#[test]
fn contradictions_are_errors() {
    let table = [
        (r#"[{"a":1},{"a":1.5}]"#, DataType::Int64, "not an integer"),
        (r#"[{"a":1},{"a":300}]"#, DataType::Int8, "range"),
        (r#"[{"a":1},{"a":-1}]"#, DataType::UInt64, "unsigned"),
        (r#"[{"a":1},{"a":"x"}]"#, DataType::Float64, "not a number"),
        (r#"[{"a":1},{"a":1e999}]"#, DataType::Float64, "beyond the range"),
        (r#"[{"a":1},{"a":true}]"#, DataType::Int64, "true where the column is Int64"),
        (r#"[{"a":1},{"a":[1]}]"#, DataType::Int64, "an array where"),
        (r#"[{"a":"2024-01-01"},{"a":"2024-02-30"}]"#, DataType::Date32, "not a date"),
        (r#"[{"a":1.5},{"a":1.55}]"#, DataType::Decimal128(3, 1), "digits"),
    ];
    for (text, data_type, message) in table {
        let target = Schema::new(vec![Field::new("a", data_type, true)]);
        let error = decode(JSON, text, target).expect_err(text);
        assert_eq!((error.row, error.column.as_deref()), (Some(2), Some("a")), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}
