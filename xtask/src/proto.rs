//! The message types of the wire: generated from the `.proto` files without a protoc of the system, and committed.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// The crate whose messages they are.
const CRATE: &str = "crates/veritas-proto";

/// The definitions, below the folder `proto` of the crate.
const SOURCE: &str = "veritas/v1/veritas.proto";

/// What is generated from them, below the folder `src`.
const GENERATED: &str = "generated/veritas.v1.rs";

/// Compares the committed types with what the definitions give, or writes them.
pub(crate) fn check(root: &Path, write: bool) -> Result<()> {
    let folder = root.join(CRATE);
    let descriptors = protox::compile([SOURCE], [folder.join("proto")]).context("the definitions")?;
    let out = tempfile::tempdir()?;
    let mut config = prost_build::Config::new();
    config.out_dir(out.path()).btree_map(["."]).disable_comments(["."]);
    config.compile_fds(descriptors).context("generating the types")?;
    let fresh = std::fs::read_to_string(out.path().join("veritas.v1.rs"))?;
    let path = folder.join("src").join(GENERATED);
    if write {
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, fresh)?;
        return Ok(());
    }
    let committed = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if committed != fresh {
        bail!("{} is not what {SOURCE} gives; `cargo xtask proto --write` writes it", path.display());
    }
    Ok(())
}
