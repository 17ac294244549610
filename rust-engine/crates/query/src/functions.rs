//! Which functions there are: DataFusion's, less those that reveal internals, with caps on those that allocate
//! without bound, and another way for those of the calendar and for `substr`.

mod calendar;
mod caps;
mod substr;
mod sum;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};
use quern_core::{EngineError, Reason};

use crate::casts::NamedCast;
use calendar::Calendar;
use caps::Cap;

/// Functions that say something about the engine rather than the data.
const HIDDEN: &[&str] = &["version", "input_file_name"];

/// Takes the hidden functions out, and puts ours in.
pub(crate) fn restrict(mut state: SessionState) -> SessionState {
    for name in HIDDEN {
        if state.scalar_functions().contains_key(*name) {
            let _ = state.deregister_udf(name);
        }
    }
    let _ = state.register_udf(Arc::new(ScalarUDF::new_from_impl(NamedCast::default())));
    let _ = state.register_udaf(Arc::new(AggregateUDF::new_from_impl(sum::CheckedSum::default())));
    state
}

/// The function amended: with a cap by the memory of one query, or another way. Nothing where it stays as it is.
pub(crate) fn amended(inner: &Arc<ScalarUDF>, query_memory: usize) -> Option<Arc<ScalarUDF>> {
    let capped = caps::of(inner.name()).map(|cap| Amendment::Cap(cap, caps::Most::of(query_memory)));
    let substr = || (inner.name() == "substr").then_some(Amendment::Substr);
    let amendment = capped.or_else(|| calendar::of(inner.name()).map(Amendment::Calendar)).or_else(substr)?;
    if inner.inner().downcast_ref::<Amended>().is_some() {
        return None;
    }
    Some(Arc::new(ScalarUDF::new_from_impl(Amended { inner: Arc::clone(inner), amendment })))
}

/// What is otherwise than DataFusion has it.
#[derive(Debug)]
enum Amendment {
    /// What it would allocate is measured first.
    Cap(Cap, caps::Most),
    /// Most of its values are had by other means.
    Calendar(Calendar),
    /// Constant parts of text in views are cut out by their bytes.
    Substr,
}

/// A function of DataFusion's that is amended.
#[derive(Debug)]
struct Amended {
    inner: Arc<ScalarUDF>,
    amendment: Amendment,
}

impl PartialEq for Amended {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Amended {}

impl Hash for Amended {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Amended {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn preimage(&self, args: &[Expr], lit_expr: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.inner.preimage(args, lit_expr, info)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.amendment {
            Amendment::Cap(cap, most) => {
                if let Some((wanted, cap, unit)) = cap.exceeded(&args, most)? {
                    let message =
                        format!("`{}` would make {wanted} {unit} at once; at most {cap} are made", self.name());
                    return Err(DataFusionError::External(Box::new(EngineError::new(Reason::ValueTooLarge, message))));
                }
            }
            Amendment::Calendar(calendar) => {
                if let Some(values) = calendar.values(&args) {
                    return Ok(values);
                }
            }
            Amendment::Substr => {
                if let Some(values) = substr::values(&args)? {
                    return Ok(values);
                }
            }
        }
        self.inner.invoke_with_args(args)
    }
}
