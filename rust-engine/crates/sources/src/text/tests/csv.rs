//! The rules for CSV, one line each.

use arrow::datatypes::{DataType, Field, Schema};

use super::{CSV, CsvOptions, TextFormat, decode, infer, read, show, types};

#[test]
fn types_follow_every_cell() {
    let table = [
        // Types.
        ("a,b\n1,x\n2,y\n", "a:Int64 b:Utf8", "1|x\n2|y"),
        ("zip\n00501\n10001\n", "zip:Utf8", "00501\n10001"),
        ("n\n0\n-5\n", "n:Int64", "0\n-5"),
        ("n\n+5\n1\n", "n:Utf8", "+5\n1"),
        ("n\n18446744073709551615\n-1\n", "n:Decimal128(20, 0)", "18446744073709551615\n-1"),
        ("n\n.097\n-1e3\n5.\n", "n:Float64", "0.097\n-1000.0\n5.0"),
        ("n\n1\nNaN\n", "n:Float64", "1.0\nNaN"),
        ("n\n1\ninf\n", "n:Utf8", "1\ninf"),
        ("b\ntrue\nFALSE\n", "b:Boolean", "true\nfalse"),
        ("b\ntrue\n1\n", "b:Utf8", "true\n1"),
        ("d\n2024-01-31\n1999/12/31\n", "d:Date32", "2024-01-31\n1999-12-31"),
        ("d\n2024-01-31\n2024-02-30\n", "d:Utf8", "2024-01-31\n2024-02-30"),
        (
            "t\n2024-01-31 10:00\n2024-01-31T10:00:01.5\n2024-02-01\n",
            "t:Timestamp(µs)",
            "2024-01-31T10:00:00\n2024-01-31T10:00:01.500\n2024-02-01T00:00:00",
        ),
        ("t\n2024-01-31T10:00:00.1234567\n", "t:Timestamp(ns)", "2024-01-31T10:00:00.123456700"),
        ("t\n2024-01-31T10:00:00.1234567\n9999-12-31\n", "t:Utf8", "2024-01-31T10:00:00.1234567\n9999-12-31"),
        (
            "t\n2024-01-31T10:00:00Z\n2024-01-31T10:00:00+0200\n",
            "t:Timestamp(µs, \"UTC\")",
            "2024-01-31T10:00:00Z\n2024-01-31T08:00:00Z",
        ),
        ("t\n2024-01-31T10:00:00Z\n2024-01-31T10:00:00\n", "t:Utf8", "2024-01-31T10:00:00Z\n2024-01-31T10:00:00"),
        ("a, b\nx, 1\ny, 2 \n", "a:Utf8  b:Int64", "x|1\ny|2"),
        // Empty cells.
        ("a,b\n1,\n,\"\"\n", "a:Int64 b:Utf8", "1|~\n~|"),
        ("a,b\n1,2\n\"\",3\n", "a:Int64 b:Int64", "1|2\n~|3"),
        // Grammar.
        ("\u{feff}a\r\n1\r\n\r\n2", "a:Int64", "1\n2"),
        ("a\r1\r2\r", "a:Int64", "1\n2"),
        ("a,b\n\"x, \"\"y\"\"\nz\",\"1\"\n", "a:Utf8 b:Int64", "x, \"y\"\nz|1"),
        ("a,b\nx\"y,2\n", "a:Utf8 b:Int64", "x\"y|2"),
        ("a,b,c\n1\n1,2,3,,\n", "a:Int64 b:Int64 c:Int64", "1|~|~\n1|2|3"),
        // Delimiters.
        ("a;b\n1,5;2\n2,5;3\n", "a:Utf8 b:Int64", "1,5|2\n2,5|3"),
        ("a\tb\n1\t2\n", "a:Int64 b:Int64", "1|2"),
        ("a|b\n1|2\n", "a:Int64 b:Int64", "1|2"),
        ("a\n\"1;2\"\n", "a:Utf8", "1;2"),
        // Headers.
        ("1,2\n3,4\n", "column1:Int64 column2:Int64", "1|2\n3|4"),
        ("x,2024-01-01\ny,2024-01-02\n", "column1:Utf8 column2:Date32", "x|2024-01-01\ny|2024-01-02"),
        (",a,a,a_2,column1\n1,2,3,4,5\n", "column1:Int64 a:Int64 a_3:Int64 a_2:Int64 column1_2:Int64", "1|2|3|4|5"),
        ("name,city\nann,bern\n", "name:Utf8 city:Utf8", "ann|bern"),
        ("a,b\n", "a:Utf8 b:Utf8", ""),
        ("", "", ""),
    ];
    for (text, expected_types, expected_rows) in table {
        let batch = read(CSV, text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(types(&batch.schema()), expected_types, "{text:?}");
        assert_eq!(show(&batch), expected_rows, "{text:?}");
    }
}

#[test]
fn options_overrule_what_is_found() {
    let headless = TextFormat::Csv(CsvOptions { delimiter: Some(b';'), header: Some(false) });
    let batch = read(headless, "a;b,c\nd;e\n").expect("valid");
    assert_eq!(types(&batch.schema()), "column1:Utf8 column2:Utf8");
    assert_eq!(show(&batch), "a|b,c\nd|e");
    let headed = TextFormat::Csv(CsvOptions { delimiter: None, header: Some(true) });
    assert_eq!(types(&read(headed, "1962,1963\n1,2\n").expect("valid").schema()), "1962:Int64 1963:Int64");
    let tsv = TextFormat::Csv(CsvOptions::tsv());
    assert_eq!(types(&read(tsv, "a,b\n1,2\n").expect("valid").schema()), "a,b:Utf8");
}

#[test]
fn faults_name_row_and_line() {
    let table = [
        ("a,b\n1,2\n\n1,2,3\n", Some(2), Some(4), "3 cells where the file has 2 columns"),
        ("a,b\n\"x\ny\",2\n1,2,3\n", Some(2), Some(4), "3 cells"),
        ("a,b\n1,2\n\"x,2\n", Some(2), Some(3), "never closed"),
        ("a,b\n\"x\"y,2\n", Some(1), Some(2), "after a closing quote"),
    ];
    for (text, row, line, message) in table {
        let error = infer(CSV, text).expect_err(text);
        assert_eq!((error.row, error.line), (row, line), "{text:?}: {error}");
        assert!(error.message.contains(message), "{text:?}: {error}");
    }
    let wide = vec!["a"; 10_001].join(",");
    assert!(infer(CSV, &wide).expect_err("too wide").message.contains("10000 columns"));
}

#[test]
fn decoding_keeps_to_the_target() {
    let text = "a,b,c\n1,x,\n2,y,3\n";
    let json = crate::widen::json_field("a");
    let b = Field::new("b", DataType::Utf8, true);
    let missing = Field::new("m", DataType::Float64, true);
    let batch = decode(CSV, text, Schema::new(vec![b, missing, json])).expect("fits");
    assert_eq!(show(&batch), "x|~|1\ny|~|2");
    let json = crate::widen::json_field("b");
    assert_eq!(show(&decode(CSV, text, Schema::new(vec![json])).expect("fits")), "\"x\"\n\"y\"");
    assert_eq!(decode(CSV, text, Schema::empty()).expect("rows alone").num_rows(), 2);

    let target = Schema::new(vec![Field::new("b", DataType::Int64, true)]);
    let error = decode(CSV, text, target).expect_err("no number");
    assert_eq!((error.row, error.line, error.column.as_deref()), (Some(1), Some(2), Some("b")), "{error}");
}
