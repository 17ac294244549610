//! Names that tell casts apart.
//!
//! DataFusion gives `sum(CAST(a AS DOUBLE))` the name that `sum(a)` has, and refuses a statement with both, whatever
//! names they have by AS. Such a statement is planned again with each cast inside a function that is named as the cast is
//! written, and that the optimizer takes away.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    self, CastKind, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, Statement,
    Value, VisitMut, VisitorMut,
};

/// What no unquoted name of SQL is.
const NAME: &str = "named cast";

/// Puts each cast of the statement inside a [`NamedCast`].
pub(crate) fn name_all(statement: &mut Statement) {
    let _ = statement.visit(&mut Namer);
}

struct Namer;

impl VisitorMut for Namer {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        let ast::Expr::Cast { kind, data_type, .. } = &*expr else { return ControlFlow::Continue(()) };
        let how = match kind {
            CastKind::Cast | CastKind::DoubleColon => "CAST",
            CastKind::TryCast | CastKind::SafeCast => "TRY_CAST",
        };
        let text = |text: String| ast::Expr::Value(Value::SingleQuotedString(text).into());
        let (how, kind) = (text(how.to_owned()), text(data_type.to_string()));
        let cast = std::mem::replace(expr, ast::Expr::Value(Value::Null.into()));
        let args = [cast, how, kind].map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).into();
        *expr = ast::Expr::Function(Function {
            name: Ident::with_quote('"', NAME).into(),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: vec![],
        });
        ControlFlow::Continue(())
    }
}

/// Gives its first argument back; its name is `CAST(a AS DOUBLE)` by the other two, `CAST` or `TRY_CAST` and the type.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamedCast {
    signature: Signature,
}

impl Default for NamedCast {
    fn default() -> Self {
        Self { signature: Signature::any(3, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for NamedCast {
    fn name(&self) -> &'static str {
        NAME
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [cast, Expr::Literal(ScalarValue::Utf8(Some(how)), _), Expr::Literal(ScalarValue::Utf8(Some(kind)), _)] => {
                Ok(format!("{how}({} AS {kind})", cast.schema_name()))
            }
            _ => plan_err!("`{NAME}` takes a cast and two texts"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [kind, ..] => Ok(kind.clone()),
            [] => plan_err!("`{NAME}` takes a cast"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.arg_fields {
            [field, ..] => Ok(FieldRef::clone(field)),
            [] => plan_err!("`{NAME}` takes a cast"),
        }
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match args.into_iter().next() {
            Some(cast) => Ok(ExprSimplifyResult::Simplified(cast)),
            None => plan_err!("`{NAME}` takes a cast"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(cast) => Ok(cast),
            None => plan_err!("`{NAME}` takes a cast"),
        }
    }
}
