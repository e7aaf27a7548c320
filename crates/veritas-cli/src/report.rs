//! What `--json` prints: objects of one line.

pub(crate) use veritas_runtime::json_line as line;
