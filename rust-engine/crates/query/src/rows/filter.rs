//! Filters by AIP-160, typed against the table's columns and turned into expressions.
//!
//! The edge has parsed the text; here each value takes the type of the column that it is compared with. A word or text
//! that does not fit fails with its place in the filter.

use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::functions::datetime::expr_fn::date_part;
use datafusion::functions::string::expr_fn::{contains, ends_with, lower, starts_with};
use datafusion::functions_nested::expr_fn::{array_has, map_keys};
use datafusion::logical_expr::{Expr, lit};
use quern_core::suggest::{nearest, some_of};
use quern_core::{EngineError, Reason, Result};

use super::float::compare;
use super::time::{self, Clock};
use super::{Path, resolve, type_name};

/// A part of a filter.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins in the filter's text, in bytes from 0.
    pub at: u32,
    /// What it is.
    pub kind: NodeKind,
}

impl Node {
    /// How many parts the filter has.
    pub(crate) fn terms(&self) -> usize {
        let (mut count, mut rest) = (0, vec![self]);
        while let Some(node) = rest.pop() {
            count += 1;
            if let NodeKind::Call(_, given) = &node.kind {
                rest.extend(given);
            }
        }
        count
    }
}

/// What a part of a filter is.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// A column.
    Column(Path),
    /// A word without quotes where a value stands: `true`, `null`, `*`, or text.
    Word(String),
    /// Text in quotes.
    Text(String),
    /// A number as it was written.
    Number(String),
    /// An operator (`AND`, `OR`, `NOT`, `=`, `!=`, `<`, `<=`, `>`, `>=`, `:`) or a function by its name.
    Call(String, Vec<Node>),
}

/// How deep a filter may be nested.
const MAX_DEPTH: usize = 100;
/// What can be called, for messages.
const FUNCTIONS: &[&str] = &[
    "contains",
    "day",
    "endsWith",
    "equalsIgnoreCase",
    "hour",
    "in",
    "lower",
    "minute",
    "month",
    "startsWith",
    "year",
];
const PARTS: &[&str] = &["year", "month", "day", "hour", "minute"];

pub(super) fn invalid(at: u32, message: impl AsRef<str>) -> EngineError {
    EngineError::new(Reason::FilterInvalid, format!("at character {} of `filter`: {}", at + 1, message.as_ref()))
        .with("position", at + 1)
}

/// A filter as a condition, at the time that `clock` has. Fails with FILTER_INVALID, UNKNOWN_COLUMN or UNKNOWN_FUNCTION.
pub(super) fn condition(filter: &Node, schema: &Schema, clock: &Clock) -> Result<Expr> {
    Typing { schema, clock }.condition(filter, MAX_DEPTH)
}

struct Typing<'a> {
    schema: &'a Schema,
    clock: &'a Clock,
}

/// What is compared: its value, its type, and how messages call it.
pub(super) struct Operand {
    pub(super) expr: Expr,
    pub(super) data_type: DataType,
    pub(super) name: String,
}

impl Typing<'_> {
    fn condition(&self, node: &Node, depth: usize) -> Result<Expr> {
        if depth == 0 {
            return Err(invalid(node.at, format!("it is nested more than {MAX_DEPTH} deep")));
        }
        let (function, args) = match &node.kind {
            NodeKind::Call(function, args) => (function.as_str(), args.as_slice()),
            NodeKind::Column(path) => return self.truth(node.at, path),
            NodeKind::Word(_) | NodeKind::Text(_) | NodeKind::Number(_) => {
                return Err(invalid(node.at, "a value alone is no condition; compare a column, as in `delay > 60`"));
            }
        };
        match (function, args) {
            ("AND" | "OR", [_, _, ..]) => {
                let terms = args.iter().map(|arg| self.condition(arg, depth - 1)).collect::<Result<Vec<_>>>()?;
                let joined = balanced(terms, if function == "AND" { Expr::and } else { Expr::or });
                joined.ok_or_else(|| invalid(node.at, "there is no condition"))
            }
            ("NOT", [inner]) => Ok(Expr::Not(Box::new(self.condition(inner, depth - 1)?))),
            ("=" | "!=" | "<" | "<=" | ">" | ">=", [left, right]) => self.comparison(function, left, right),
            (":", [left, right]) => self.has(left, right),
            ("in", [column, values @ ..]) if !values.is_empty() => {
                let operand = self.operand(column)?;
                let literals = values.iter().map(|value| operand.literal(value));
                let literals = literals.collect::<Result<Vec<_>>>()?;
                if operand.data_type.is_floating() || matches!(operand.data_type, DataType::Timestamp(..)) {
                    let each = values.iter().map(|value| self.compared(&operand, "=", value));
                    let each = each.collect::<Result<Vec<_>>>()?;
                    return balanced(each, Expr::or).ok_or_else(|| invalid(node.at, usage("in")));
                }
                Ok(operand.expr.in_list(literals.into_iter().map(lit).collect(), false))
            }
            ("startsWith", [column, value]) => Ok(starts_with(self.text(column)?, constant(value)?)),
            ("endsWith", [column, value]) => Ok(ends_with(self.text(column)?, constant(value)?)),
            ("contains", [column, value]) => Ok(contains(self.text(column)?, constant(value)?)),
            ("equalsIgnoreCase", [column, value]) => Ok(lower(self.text(column)?).eq(lower(constant(value)?))),
            (name, _) if FUNCTIONS.contains(&name) => Err(invalid(node.at, usage(name))),
            (name, _) => Err(unknown_function(node.at, name)),
        }
    }

    fn truth(&self, at: u32, path: &Path) -> Result<Expr> {
        let (expr, data_type, spelled) = resolve(path, self.schema).map_err(|e| placed(e, at))?;
        if data_type == DataType::Boolean {
            return Ok(expr);
        }
        let name = spelled.join(".");
        Err(invalid(at, format!("`{name}` is {}, no condition; compare it, as in `{name} = …`", type_name(&data_type))))
    }

    /// What can stand on the left: a column, or a function of one.
    fn operand(&self, node: &Node) -> Result<Operand> {
        match &node.kind {
            NodeKind::Column(path) => {
                let (expr, data_type, spelled) = resolve(path, self.schema).map_err(|e| placed(e, node.at))?;
                Ok(Operand { expr, data_type, name: spelled.join(".") })
            }
            NodeKind::Call(function, args) => match (function.as_str(), args.as_slice()) {
                ("lower", [column]) => {
                    Ok(Operand { expr: lower(self.text(column)?), data_type: DataType::Utf8, name: function.clone() })
                }
                (part, [column]) if PARTS.contains(&part) => {
                    let operand = self.operand(column)?;
                    if !matches!(operand.data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) {
                        return Err(operand.unfit(node.at, &format!("so `{part}` can't be taken of it")));
                    }
                    let expr = date_part(lit(part), operand.expr);
                    Ok(Operand { expr, data_type: DataType::Int32, name: function.clone() })
                }
                (name, _) if FUNCTIONS.contains(&name) => Err(invalid(node.at, usage(name))),
                (name, _)
                    if name.chars().next().is_some_and(char::is_alphabetic)
                        && !matches!(name, "AND" | "OR" | "NOT") =>
                {
                    Err(unknown_function(node.at, name))
                }
                _ => Err(invalid(node.at, "a condition can't be compared; a column's name must stand here")),
            },
            NodeKind::Word(_) | NodeKind::Text(_) | NodeKind::Number(_) => {
                Err(invalid(node.at, "a column's name must stand on the left, the value on the right"))
            }
        }
    }

    fn text(&self, node: &Node) -> Result<Expr> {
        let operand = self.operand(node)?;
        if is_text(&operand.data_type) {
            return Ok(operand.expr);
        }
        Err(operand.unfit(node.at, "and this needs text"))
    }

    fn comparison(&self, operator: &str, left: &Node, right: &Node) -> Result<Expr> {
        let operand = self.operand(left)?;
        if matches!(&right.kind, NodeKind::Word(word) if word == "null") {
            return match operator {
                "=" => Ok(operand.expr.is_null()),
                "!=" => Ok(operand.expr.is_not_null()),
                _ => Err(invalid(right.at, format!("`{operator}` can't compare with null; use `=` or `!=`"))),
            };
        }
        if operand.data_type == DataType::Boolean && !matches!(operator, "=" | "!=") {
            return Err(operand.unfit(left.at, "which has no order; use `=` or `!=`"));
        }
        self.compared(&operand, operator, right)
    }

    fn compared(&self, operand: &Operand, operator: &str, right: &Node) -> Result<Expr> {
        if matches!(right.kind, NodeKind::Call(..)) {
            return time::compare(operand, operator, right, self.clock);
        }
        let value = operand.literal(right)?;
        if matches!(operand.data_type, DataType::Timestamp(..)) {
            // What is written may be finer than the column.
            return time::compare(operand, operator, right, self.clock);
        }
        Ok(operand.compared(operator, value))
    }

    /// `:` — has: an element, a key, a field that is not null; of a scalar, the value. `:*` is presence.
    fn has(&self, left: &Node, right: &Node) -> Result<Expr> {
        let operand = self.operand(left)?;
        if matches!(&right.kind, NodeKind::Word(word) if word == "*") {
            return Ok(operand.expr.is_not_null());
        }
        match operand.data_type.clone() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                let element = Operand { data_type: item.data_type().clone(), ..operand };
                let value = element.literal(right)?;
                Ok(array_has(element.expr, lit(value)))
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(operand.unfit(left.at, "whose keys can't be read"));
                };
                let key = fields.first().map_or(DataType::Utf8, |field| field.data_type().clone());
                let keys = Operand { data_type: key, ..operand };
                let value = keys.literal(right)?;
                Ok(array_has(map_keys(keys.expr), lit(value)))
            }
            DataType::Struct(_) => {
                let (NodeKind::Column(path), NodeKind::Word(name) | NodeKind::Text(name)) = (&left.kind, &right.kind)
                else {
                    return Err(invalid(right.at, "the name of a field must stand here"));
                };
                let mut path = path.clone();
                path.push(name.clone());
                Ok(resolve(&path, self.schema).map_err(|e| placed(e, right.at))?.0.is_not_null())
            }
            _ => self.comparison("=", left, right),
        }
    }
}

impl Operand {
    pub(super) fn compared(&self, operator: &str, value: ScalarValue) -> Expr {
        let column = self.expr.clone();
        if let (true, ScalarValue::Float64(Some(number))) = (self.data_type.is_floating(), &value) {
            return compare(column, operator, *number);
        }
        let value = lit(value);
        match operator {
            "=" => column.eq(value),
            "!=" => column.not_eq(value),
            "<" => column.lt(value),
            "<=" => column.lt_eq(value),
            ">" => column.gt(value),
            _ => column.gt_eq(value),
        }
    }

    pub(super) fn unfit(&self, at: u32, why: &str) -> EngineError {
        invalid(at, format!("`{}` is {}, {why}", self.name, type_name(&self.data_type)))
    }

    /// A value as the operand's type.
    fn literal(&self, node: &Node) -> Result<ScalarValue> {
        let (given, quoted) = match &node.kind {
            NodeKind::Word(word) => (word.as_str(), false),
            NodeKind::Text(text) => (text.as_str(), true),
            NodeKind::Number(number) => (number.as_str(), false),
            NodeKind::Call(..) => {
                return Err(invalid(
                    node.at,
                    "a time that is computed stands in no list; compare it by `=`, `<` and so on",
                ));
            }
            NodeKind::Column(_) => {
                return Err(invalid(
                    node.at,
                    "a value must stand on the right; columns can't be compared with each other",
                ));
            }
        };
        if given == "null" && !quoted {
            return Err(invalid(node.at, "null is in no list; write `… = null`"));
        }
        self.value(given).map_err(|message| invalid(node.at, message))
    }

    /// A text as the operand's type, or as a wider one of numbers, or why it is none.
    pub(super) fn value(&self, given: &str) -> Result<ScalarValue, String> {
        let text = || ScalarValue::Utf8(Some(given.to_owned()));
        let value = match &self.data_type {
            t if is_text(t) => Some(text()),
            DataType::Boolean => given.parse().ok().map(|truth| ScalarValue::Boolean(Some(truth))),
            t if t.is_numeric() => number(given, t),
            DataType::Date32
            | DataType::Date64
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Timestamp(..) => text().cast_to(&self.data_type).ok(),
            other => {
                let name = type_name(other);
                return Err(format!(
                    "`{}` is {name}, which can't be compared; `:*` asks whether there is one",
                    self.name
                ));
            }
        };
        value.ok_or_else(|| {
            let (name, example) = (type_name(&self.data_type), example(&self.data_type));
            format!("`{}` is {name}, which `{given}` is not; {example}", self.name)
        })
    }
}

/// A number for a column of numbers, with all its digits: the column's type where it fits, else a wider one.
fn number(given: &str, data_type: &DataType) -> Option<ScalarValue> {
    let digits = given.strip_prefix('-').unwrap_or(given);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        // Words such as `inf` and `nan` are none.
        return None;
    }
    let text = ScalarValue::Utf8(Some(given.to_owned()));
    if data_type.is_integer() {
        if let Ok(whole) = given.parse::<i64>() {
            return Some(ScalarValue::Int64(Some(whole)));
        }
        if let Ok(whole) = given.parse::<u64>() {
            return Some(ScalarValue::UInt64(Some(whole)));
        }
    }
    if data_type.is_decimal() {
        let scale = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let scale = i8::try_from(scale).ok().filter(|scale| *scale <= 38);
        let exact = scale.and_then(|scale| text.cast_to(&DataType::Decimal128(38, scale)).ok());
        if exact.is_some() {
            return exact;
        }
    }
    given.parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| ScalarValue::Float64(Some(n)))
}

/// Joins terms so that the tree is as deep as the logarithm of their number.
fn balanced(mut terms: Vec<Expr>, join: fn(Expr, Expr) -> Expr) -> Option<Expr> {
    while terms.len() > 1 {
        let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
        let mut each = terms.into_iter();
        while let Some(left) = each.next() {
            joined.push(match each.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        terms = joined;
    }
    terms.pop()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn constant(node: &Node) -> Result<Expr> {
    match &node.kind {
        NodeKind::Word(text) | NodeKind::Text(text) | NodeKind::Number(text) => Ok(lit(text.as_str())),
        NodeKind::Column(_) | NodeKind::Call(..) => Err(invalid(node.at, "a text must stand here")),
    }
}

fn example(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "write true or false",
        DataType::Date32 | DataType::Date64 => "write one such as \"2024-02-29\"",
        DataType::Time32(_) | DataType::Time64(_) => "write one such as \"12:30:00\"",
        DataType::Timestamp(..) => "write one such as \"2024-02-29T12:30:00Z\"",
        _ => "write one such as 60 or -2.5",
    }
}

fn usage(function: &str) -> String {
    let form = match function {
        "in" => "in(column, value, …)",
        "lower" => "lower(column) = \"…\"",
        "contains" | "startsWith" | "endsWith" | "equalsIgnoreCase" => {
            return format!("write {function}(column, \"text\")");
        }
        _ => return format!("write {function}(column) = 1"),
    };
    format!("write {form}")
}

fn unknown_function(at: u32, name: &str) -> EngineError {
    if time::FUNCTIONS.contains(&name) {
        return invalid(at, format!("`{name}` computes a time, which stands on the right, as in `at > ago(24h)`"));
    }
    let hint = match nearest(name, FUNCTIONS.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", some_of(FUNCTIONS.iter().copied())),
    };
    let mut error = invalid(at, format!("no function `{name}`; {hint}"));
    error.reason = Reason::UnknownFunction;
    error.with("function", name)
}

/// Adds where in the filter an error is.
fn placed(mut error: EngineError, at: u32) -> EngineError {
    error.message = format!("at character {} of `filter`: {}", at + 1, error.message);
    error.with("position", at + 1)
}
