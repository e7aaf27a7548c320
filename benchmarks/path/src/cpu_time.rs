//! Processor time of a process, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Where `utime` and `stime` stand among the fields that follow the name in `/proc/PID/stat` (proc(5) counts the name
/// as field 2, and these as 14 and 15).
const UTIME_AFTER_NAME: usize = 11;

/// The step in which the kernel counts.
///
/// # Errors
/// If the kernel names no sensible one.
pub(crate) fn resolution() -> Result<Duration> {
    let per_second = rustix::param::clock_ticks_per_second();
    ensure!(per_second > 0, "the kernel says that a second has {per_second} ticks");
    Ok(Duration::from_secs(1) / u32::try_from(per_second)?)
}

/// Time that all threads of a process have run so far, those that have ended included.
///
/// # Errors
/// If there is no such process or the kernel's answer cannot be read.
pub(crate) fn of(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks_of(&stat).with_context(|| format!("{path} has no processor time: {stat}"))?;
    Ok(resolution()? * u32::try_from(ticks)?)
}

fn ticks_of(stat: &str) -> Option<u64> {
    // The name may itself hold parentheses and spaces; its end is the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(UTIME_AFTER_NAME);
    let user = fields.next()?.parse::<u64>().ok()?;
    let system = fields.next()?.parse::<u64>().ok()?;
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 100 0 0 0 31 11 5 6 20 0 1 0 99";
        assert_eq!(ticks_of(stat), Some(42));
    }

    #[test]
    fn a_line_that_is_cut_off_has_no_time() {
        assert_eq!(ticks_of("7 (a) S 1 7 7 0 -1 4194560 100 0 0 0 31"), None);
        assert_eq!(ticks_of(""), None);
    }

    #[test]
    fn this_process_has_a_time() {
        assert!(of(std::process::id()).is_ok());
        assert!(resolution().unwrap() > Duration::ZERO);
    }
}
