//! The session that plans statements: DataFusion's options, where its defaults are not what serves here.

use std::sync::Arc;

use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionConfig;

use crate::checked::CheckOperators;
use crate::functions;
use crate::limits::Limits;
use crate::plans;
use crate::sums::ShareSums;

/// The widest range of keys that a join holds as an array whatever share of it there is, of 4 bytes each.
const KEY_RANGE: usize = 8 << 20;
/// The share of a query's memory that such arrays of one join may take, one for each thread: one in this many.
const KEY_RANGE_SHARE: usize = 16;
/// The largest side of a join that is one table for all threads, in bytes and in rows.
const SHARED_SIDE_BYTES: usize = 128 << 20;
const SHARED_SIDE_ROWS: usize = 2 << 20;

/// The session that every query's session is a copy of.
pub(crate) fn template(limits: &Limits) -> SessionState {
    let mut config = SessionConfig::new()
        .with_target_partitions(limits.threads)
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false);
    let options = config.options_mut();
    options.execution.time_zone = Some("+00:00".to_owned());
    // Keys of joins are looked up by their place in an array while that is small: it needs no hashes, in the join and in
    // the scans that it tells its keys.
    options.execution.perfect_hash_join_small_build_threshold =
        (limits.query_memory / KEY_RANGE_SHARE / size_of::<u32>() / limits.threads.max(1)).min(KEY_RANGE);
    // A side that is not very large is shared by all threads, which is cheaper than sending both sides' rows between them.
    options.optimizer.hash_join_single_partition_threshold = SHARED_SIDE_BYTES;
    options.optimizer.hash_join_single_partition_threshold_rows = SHARED_SIDE_ROWS;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_analyzer_rule(Arc::new(ShareSums))
        .with_analyzer_rule(Arc::new(CheckOperators { query_memory: limits.query_memory }))
        .with_physical_optimizer_rules(plans::rules())
        .build();
    functions::restrict(state)
}
