//! Tables as resources, which are asked for by name.

use std::collections::BTreeSet;
use std::sync::Arc;

use quern_core::{EngineError, Reason, Result};
use quern_sources::Table;

use super::Engine;
use crate::allow::Findings;
use crate::errors;
use crate::pins::{Pins, gone};
use crate::rows;

impl Engine {
    /// A key that more than one row of a table has, if there is one and the key can be indexed. To index it is work like a
    /// query's. Fails with NO_KEY or CONFIG_INVALID, where the table can't be read, or with TOO_MANY_QUERIES.
    pub async fn duplicate_key(&self, name: &str, key: &[rows::Path]) -> Result<Option<String>> {
        let table = self.table_at(name, None).await?;
        let Some(columns) = rows::indexed_columns(key, &table)? else { return Ok(None) };
        let caches = self.runtime.caches();
        if let Some(index) = caches.keys.known(&table, &columns) {
            return Ok(index.duplicate().map(str::to_owned));
        }
        let _permit = self.admission.enter().await?;
        let pins = Pins::of(std::slice::from_ref(&table), false);
        match caches.keys.get(&table, &pins.store, caches, &columns).await {
            Ok(index) => Ok(index.and_then(|index| index.duplicate().map(str::to_owned))),
            Err(e) => Err(pins.explain(errors::execution(&e, &Findings::default())).await),
        }
    }

    /// A table as a resource: now, or at the snapshot that an earlier page has read. Fails with TABLE_NOT_FOUND or
    /// SNAPSHOT_GONE.
    pub(super) async fn table_at(&self, name: &str, snapshot: Option<&str>) -> Result<Arc<Table>> {
        if let Some(known) = snapshot.and_then(|snapshot| self.catalog.remembered(name, snapshot)) {
            return Ok(known);
        }
        let tables = self.catalog.resolve(BTreeSet::from([name.to_owned()])).await.map_err(|mut error| {
            if error.reason == Reason::UnknownTable {
                error.reason = Reason::TableNotFound;
            }
            error
        })?;
        let table = tables.into_iter().next().ok_or_else(|| EngineError::internal("a table was not resolved"))?;
        match snapshot {
            Some(snapshot) if table.snapshot != snapshot => Err(gone(&format!("table `{name}` has changed"))),
            _ => Ok(table),
        }
    }
}
