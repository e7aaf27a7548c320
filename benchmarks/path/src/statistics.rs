//! Percentiles and medians of measured values.

use anyhow::{Result, ensure};

/// The value below or at which `share` of the values lie (nearest rank): always one that was measured.
///
/// # Errors
/// If there is none.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> Result<f64> {
    ensure!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    Ok(values[rank.clamp(1, values.len()) - 1])
}

/// The middle value, or the mean of the two in the middle.
///
/// # Errors
/// If there is none.
pub(crate) fn median(values: &mut [f64]) -> Result<f64> {
    ensure!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    Ok(if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let mut values = (1..=200).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile(&mut values, 0.5).unwrap(), 100.0);
        assert_eq!(percentile(&mut values, 0.99).unwrap(), 198.0);
        assert_eq!(percentile(&mut [7.0], 0.99).unwrap(), 7.0);
        assert_eq!(percentile(&mut [7.0, 8.0], 0.0).unwrap(), 7.0);
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]).unwrap(), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]).unwrap(), 2.5);
    }

    #[test]
    fn nothing_has_no_statistics() {
        assert!(percentile(&mut [], 0.5).is_err());
        assert!(median(&mut []).is_err());
    }
}
