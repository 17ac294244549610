//! The TPC-H tables as Parquet files, one file a table.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::Result;
use arrow::record_batch::RecordBatchReader;
use clap::ValueEnum;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

use crate::file::write_whole;

/// Small enough that two cores share a table of a million rows evenly, large enough to compress well.
const ROWS_PER_GROUP: usize = 131_072;

/// One of the eight tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Table {
    Customer,
    Lineitem,
    Nation,
    Orders,
    Part,
    Partsupp,
    Region,
    Supplier,
}

impl Table {
    /// Every table, by name.
    pub(crate) const ALL: [Self; 8] = [
        Self::Customer,
        Self::Lineitem,
        Self::Nation,
        Self::Orders,
        Self::Part,
        Self::Partsupp,
        Self::Region,
        Self::Supplier,
    ];

    fn file_name(self) -> &'static str {
        match self {
            Self::Customer => "customer.parquet",
            Self::Lineitem => "lineitem.parquet",
            Self::Nation => "nation.parquet",
            Self::Orders => "orders.parquet",
            Self::Part => "part.parquet",
            Self::Partsupp => "partsupp.parquet",
            Self::Region => "region.parquet",
            Self::Supplier => "supplier.parquet",
        }
    }

    fn batches(self, scale: f64) -> Box<dyn RecordBatchReader> {
        match self {
            Self::Customer => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
            Self::Lineitem => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
            Self::Nation => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1))),
            Self::Orders => Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
            Self::Part => Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1))),
            Self::Partsupp => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
            Self::Region => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
            Self::Supplier => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
        }
    }
}

/// Writes one table at the given scale.
pub(crate) fn write(table: Table, scale: f64, folder: &Path) -> Result<()> {
    write_whole(folder, table.file_name(), |out| fill(out, table.batches(scale)))
}

fn fill(out: &mut BufWriter<File>, batches: Box<dyn RecordBatchReader>) -> Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
        .build();
    // Without the embedded Arrow schema the file is one that any other writer could have made.
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(out, batches.schema(), options)?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}
