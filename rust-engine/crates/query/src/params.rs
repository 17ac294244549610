//! Parameters: bound to placeholders by type, never spliced into text.

use std::collections::{BTreeMap, HashMap};

use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use quern_core::{EngineError, Reason, Result};
use serde_json::Value;

use crate::errors;
use arrow::datatypes::DataType;

/// The caller's values.
#[derive(Clone, Debug, Default)]
pub enum Params {
    /// None were sent.
    #[default]
    None,
    /// For `$1`, `$2`, …
    List(Vec<Value>),
    /// For `$name`.
    Named(BTreeMap<String, Value>),
}

/// Binds the parameters. Fails with PARAMETER_INVALID, which says which one and what it should be.
pub(crate) fn bind(plan: LogicalPlan, params: &Params) -> Result<LogicalPlan> {
    let wanted = plan.get_parameter_fields().map_err(|e| errors::planning("", &e))?;
    let wanted: BTreeMap<String, Option<DataType>> =
        wanted.into_iter().map(|(id, field)| (id, field.map(|f| f.data_type().clone()))).collect();
    let given: BTreeMap<String, &Value> = match params {
        Params::None => BTreeMap::new(),
        Params::List(values) => values.iter().enumerate().map(|(i, v)| (format!("${}", i + 1), v)).collect(),
        Params::Named(values) => values.iter().map(|(name, v)| (format!("${name}"), v)).collect(),
    };
    if let Some(extra) = given.keys().find(|id| !wanted.contains_key(*id)) {
        return Err(invalid(extra, format!("the statement has no placeholder `{extra}`")));
    }
    let mut values = BTreeMap::new();
    for (id, data_type) in &wanted {
        let Some(value) = given.get(id) else {
            let what =
                data_type.as_ref().map_or_else(|| "a value".to_owned(), |t| format!("a value of type {}", name(t)));
            return Err(invalid(id, format!("the placeholder `{id}` needs {what} in `params`")));
        };
        values.insert(id.trim_start_matches('$').to_owned(), scalar(id, value, data_type.as_ref())?);
    }
    if values.is_empty() {
        return Ok(plan);
    }
    let bound = match params {
        Params::List(list) => {
            let ordered = (1..=list.len()).filter_map(|i| values.remove(&i.to_string())).collect::<Vec<_>>();
            ParamValues::from(ordered)
        }
        Params::None | Params::Named(_) => ParamValues::from(values.into_iter().collect::<HashMap<_, _>>()),
    };
    plan.with_param_values(bound).map_err(|e| errors::planning("", &e))
}

fn scalar(id: &str, value: &Value, wanted: Option<&DataType>) -> Result<ScalarValue> {
    let wanted_type = wanted.cloned().unwrap_or_else(|| natural_type(value));
    let mismatch = |got: &str| {
        invalid(id, format!("the placeholder `{id}` expects a value of type {}, not {got}", name(&wanted_type)))
    };
    match value {
        Value::Null => ScalarValue::try_from(&wanted_type).map_err(|_| mismatch("null")),
        Value::Bool(b) if wanted_type == DataType::Boolean => Ok(ScalarValue::Boolean(Some(*b))),
        Value::Bool(_) => Err(mismatch("a boolean")),
        Value::Number(_) | Value::String(_) if wanted_type == DataType::Null => Ok(ScalarValue::Null),
        Value::Number(n) if !is_text(&wanted_type) => {
            let fraction = n.as_i64().is_none() && n.as_u64().is_none() && n.as_f64().is_some_and(|f| f.fract() != 0.0);
            if fraction && wanted_type.is_integer() || wanted_type == DataType::Boolean {
                return Err(mismatch(&format!("{n}")));
            }
            ScalarValue::try_from_string(number_text(n, &wanted_type), &wanted_type)
                .map_err(|_| mismatch(&format!("{n}")))
        }
        Value::Number(n) => Err(mismatch(&format!("the number {n}"))),
        Value::String(s) => ScalarValue::try_from_string(s.clone(), &wanted_type)
            .map_err(|_| mismatch(&format!("the string {}", shortened(s)))),
        Value::Array(_) | Value::Object(_) => Err(mismatch("a list or object")),
    }
}

/// The SQL name of the types that parameters mostly have.
fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(..) => "TIMESTAMP".to_owned(),
        text if is_text(text) => "VARCHAR".to_owned(),
        other => other.to_string(),
    }
}

fn number_text(n: &serde_json::Number, wanted: &DataType) -> String {
    match n.as_f64() {
        Some(f) if n.is_f64() && f.fract() == 0.0 && !wanted.is_floating() && f.abs() < 9.1e15 => format!("{f:.0}"),
        _ => n.to_string(),
    }
}

fn natural_type(value: &Value) -> DataType {
    match value {
        Value::Null => DataType::Null,
        Value::Bool(_) => DataType::Boolean,
        Value::Number(n) if n.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 9.1e15) => DataType::Int64,
        Value::Number(_) => DataType::Float64,
        Value::String(_) | Value::Array(_) | Value::Object(_) => DataType::Utf8,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

fn invalid(id: &str, message: String) -> EngineError {
    EngineError::new(Reason::ParameterInvalid, message).with("parameter", id.trim_start_matches('$'))
}
