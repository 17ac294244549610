//! Arithmetic that fails where DataFusion's would wrap around.
//!
//! After types are coerced, `+`, `-` and `*` over integers and the minus sign become functions of ours. The names of
//! result columns stay as they were.

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

/// Puts [`Checked`] in the place of the operators that wrap around.
#[derive(Debug)]
pub(crate) struct CheckArithmetic;

impl AnalyzerRule for CheckArithmetic {
    fn name(&self) -> &'static str {
        "check_arithmetic"
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
                let checked = expr.transform_up(|e| Ok(check(e, &schema)))?;
                Ok(if checked.transformed { checked.update_data(|e| name.restore(e)) } else { checked })
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(rewritten.data)
    }
}

fn check(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match operation(op, &left, &right, schema) {
            Some(operation) => Transformed::yes(call(operation, vec![*left, *right])),
            None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        },
        Expr::Negative(inner) => match inner.get_type(schema) {
            Ok(kind) if kind.is_signed_integer() && !matches!(*inner, Expr::Literal(..)) => {
                match ScalarValue::new_zero(&kind) {
                    Ok(zero) => Transformed::yes(call(Operation::Subtract, vec![Expr::Literal(zero, None), *inner])),
                    Err(_) => Transformed::no(Expr::Negative(inner)),
                }
            }
            _ => Transformed::no(Expr::Negative(inner)),
        },
        other => Transformed::no(other),
    }
}

fn operation(op: Operator, left: &Expr, right: &Expr, schema: &DFSchema) -> Option<Operation> {
    let operation = match op {
        Operator::Plus => Operation::Add,
        Operator::Minus => Operation::Subtract,
        Operator::Multiply => Operation::Multiply,
        _ => return None,
    };
    let kind = left.get_type(schema).ok()?;
    (kind.is_integer() && right.get_type(schema).ok()? == kind).then_some(operation)
}

fn call(operation: Operation, args: Vec<Expr>) -> Expr {
    let checked = Checked { operation, signature: Signature::any(2, Volatility::Immutable) };
    Expr::ScalarFunction(ScalarFunction { func: Arc::new(ScalarUDF::new_from_impl(checked)), args })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
}

/// An operator over two integers of one type. Fails on overflow.
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
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [left, right] if left == right => Ok(left.clone()),
            _ => plan_err!("`{}` takes two integers of one type", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return plan_err!("`{}` takes two integers", self.name());
        };
        let kernel = match self.operation {
            Operation::Add => numeric::add,
            Operation::Subtract => numeric::sub,
            Operation::Multiply => numeric::mul,
        };
        apply(left, right, kernel)
    }
}
