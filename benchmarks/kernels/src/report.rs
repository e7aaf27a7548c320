//! A line per cell: of a Markdown table, or of JSON.

use anyhow::Result;

use crate::measure::Cell;

/// Writes lines, the first with the table's head.
pub(crate) struct Report {
    json: bool,
    has_head: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, has_head: json }
    }

    /// The line of a cell.
    ///
    /// # Errors
    /// If a figure is no number.
    pub(crate) fn line(&mut self, cell: &Cell) -> Result<String> {
        if self.json {
            return Ok(serde_json::to_string(cell)? + "\n");
        }
        let mut text = String::new();
        if !self.has_head {
            self.has_head = true;
            text.push_str(
                "| type | rows × weights | columns | threads | weights GB/s | read GB/s | of read % | Gop/s | peak Gop/s | of peak % |\n\
                 |---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            );
        }
        text += &format!(
            "| {} | {} × {} | {} | {} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.1} |\n",
            cell.ty,
            cell.rows,
            cell.cols,
            cell.columns,
            cell.threads,
            cell.weight_gbs,
            cell.read_gbs,
            cell.read_percent,
            cell.gops,
            cell.peak_gops,
            cell.peak_percent,
        );
        Ok(text)
    }
}
