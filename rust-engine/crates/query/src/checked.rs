//! Operators that fail where DataFusion's would wrap around, and functions that would allocate without bound.
//!
//! After types are coerced, `+`, `-` and `*` over integers, the minus sign, and `||` over text and bytes become functions
//! of ours, and the functions that need a cap get one: here, since not all of them are looked up by name; syntax such as
//! `overlay(… placing …)` brings its own. The names of result columns stay as they were.

mod concat;

use std::sync::Arc;

use arrow::compute::kernels::numeric;
use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

use crate::functions;

/// Puts [`Checked`] in the place of the operators, and amends functions.
#[derive(Debug)]
pub(crate) struct CheckOperators {
    /// The memory of one query, in bytes.
    pub(crate) query_memory: usize,
}

impl AnalyzerRule for CheckOperators {
    fn name(&self) -> &'static str {
        "check_operators"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let mut schema = merge_schema(&node.inputs());
            if let LogicalPlan::TableScan(scan) = &node {
                schema.merge(&DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?);
            }
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                let checked = expr.transform_up(|e| Ok(self.check(e, &schema)))?;
                Ok(if checked.transformed { checked.update_data(|e| name.restore(e)) } else { checked })
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(rewritten.data)
    }
}

impl CheckOperators {
    fn check(&self, expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match operation(op, &left, &right, schema) {
                Some(operation) => Transformed::yes(self.call(operation, vec![*left, *right])),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            },
            Expr::Negative(inner) => match inner.get_type(schema) {
                Ok(kind) if kind.is_signed_integer() && !matches!(*inner, Expr::Literal(..)) => {
                    match ScalarValue::new_zero(&kind) {
                        Ok(zero) => {
                            Transformed::yes(self.call(Operation::Subtract, vec![Expr::Literal(zero, None), *inner]))
                        }
                        Err(_) => Transformed::no(Expr::Negative(inner)),
                    }
                }
                _ => Transformed::no(Expr::Negative(inner)),
            },
            Expr::ScalarFunction(call) => match functions::amended(&call.func, self.query_memory) {
                Some(func) => Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, ..call })),
                None => Transformed::no(Expr::ScalarFunction(call)),
            },
            other => Transformed::no(other),
        }
    }

    fn call(&self, operation: Operation, args: Vec<Expr>) -> Expr {
        let signature = Signature::any(2, Volatility::Immutable);
        let func = Arc::new(ScalarUDF::new_from_impl(Checked { operation, signature }));
        let func = functions::amended(&func, self.query_memory).unwrap_or(func);
        Expr::ScalarFunction(ScalarFunction { func, args })
    }
}

fn operation(op: Operator, left: &Expr, right: &Expr, schema: &DFSchema) -> Option<Operation> {
    let operation = match op {
        Operator::Plus => Operation::Add,
        Operator::Minus => Operation::Subtract,
        Operator::Multiply => Operation::Multiply,
        Operator::StringConcat => Operation::Concat,
        _ => return None,
    };
    let kind = left.get_type(schema).ok()?;
    let takes = match operation {
        Operation::Concat => kind.is_string() || kind.is_binary(),
        Operation::Add | Operation::Subtract | Operation::Multiply => kind.is_integer(),
    };
    (takes && right.get_type(schema).ok()? == kind).then_some(operation)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Concat,
}

/// An operator over two values of one type. Fails on overflow.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    operation: Operation,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        match self.operation {
            Operation::Add => "add",
            Operation::Subtract => "subtract",
            Operation::Multiply => "multiply",
            Operation::Concat => "||",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [left, right] if left == right => Ok(left.clone()),
            _ => plan_err!("`{}` takes two values of one type", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return plan_err!("`{}` takes two values", self.name());
        };
        let kernel = match self.operation {
            Operation::Add => numeric::add,
            Operation::Subtract => numeric::sub,
            Operation::Multiply => numeric::mul,
            Operation::Concat => return Ok(ColumnarValue::Array(concat::concat(left, right, args.number_rows)?)),
        };
        apply(left, right, kernel)
    }
}
