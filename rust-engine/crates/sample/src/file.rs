//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Writes `folder/name` by way of a hidden file beside it, so that a server that watches the folder never
/// sees half of it.
pub(crate) fn write_whole(
    folder: &Path,
    name: &str,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
) -> Result<()> {
    let target = folder.join(name);
    let hidden = folder.join(format!(".{name}.tmp"));
    let write = || -> Result<()> {
        let mut out = BufWriter::new(File::create(&hidden)?);
        fill(&mut out)?;
        out.flush()?;
        std::fs::rename(&hidden, &target)?;
        Ok(())
    };
    write().with_context(|| format!("can't write {}", target.display()))
}
