//! Which functions there are: DataFusion's, less those that reveal internals, with caps on those that allocate
//! without bound.

mod caps;
mod sum;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};
use quern_core::{EngineError, Reason};

use crate::casts::NamedCast;
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

/// The function with a cap by the memory of one query, if it needs one and has none.
pub(crate) fn capped(inner: &Arc<ScalarUDF>, query_memory: usize) -> Option<Arc<ScalarUDF>> {
    let cap = caps::of(inner.name())?;
    if inner.inner().downcast_ref::<Capped>().is_some() {
        return None;
    }
    let (inner, most) = (Arc::clone(inner), caps::Most::of(query_memory));
    Some(Arc::new(ScalarUDF::new_from_impl(Capped { inner, cap, most })))
}

/// A function that first measures what it would allocate.
#[derive(Debug)]
struct Capped {
    inner: Arc<ScalarUDF>,
    cap: Cap,
    most: caps::Most,
}

impl PartialEq for Capped {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Capped {}

impl Hash for Capped {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Capped {
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

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some((wanted, cap, unit)) = self.cap.exceeded(&args, self.most)? {
            let message = format!("`{}` would make {wanted} {unit} at once; at most {cap} are made", self.name());
            return Err(DataFusionError::External(Box::new(EngineError::new(Reason::ValueTooLarge, message))));
        }
        self.inner.invoke_with_args(args)
    }
}
