//! The date that a template may ask for. There is no clock here: it is a field of the request.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Date {
    /// A day of the years 1 to 9999, which is what Python's `datetime` knows.
    ///
    /// # Errors
    /// [`Error::InvalidDate`] if there is no such day.
    pub fn new(year: u16, month: u8, day: u8) -> Result<Self, Error> {
        let date = Self { year, month, day };
        let good = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day);
        if good { Ok(date) } else { Err(Error::InvalidDate { found: date.to_string() }) }
    }

    /// The UTC day of a time in seconds since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
    ///
    /// # Errors
    /// [`Error::InvalidDate`] beyond the year 9999.
    pub fn from_unix_seconds(seconds: u64) -> Result<Self, Error> {
        let days = seconds / 86_400 + 719_468; // since 0000-03-01
        let era = days / 146_097;
        let of_era = days % 146_097;
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153; // months since March
        let day = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let invalid = || Error::InvalidDate { found: format!("{seconds} s after 1970") };
        Self::new(u16::try_from(year).map_err(|_| invalid())?, month as u8, day as u8).map_err(|_| invalid())
    }

    /// Day of the year, from 1.
    fn ordinal(self) -> u32 {
        (1..self.month).map(|month| u32::from(days_in_month(self.year, month))).sum::<u32>()
            + u32::from(self.day)
    }

    /// Day of the week, Monday is 0.
    fn weekday(self) -> usize {
        let before = u32::from(self.year) - 1;
        ((before * 365 + before / 4 - before / 100 + before / 400 + self.ordinal() + 6) % 7) as usize
    }

    /// Python's `strftime` at midnight, in the C locale; `None` for a directive that is not known.
    pub(super) fn strftime(self, format: &str) -> Option<String> {
        let (weekday, month) = (WEEKDAYS[self.weekday()], MONTHS[usize::from(self.month - 1)]);
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let directive = chars.next()?;
            let text = match directive {
                'Y' => format!("{:04}", self.year),
                'y' => format!("{:02}", self.year % 100),
                'm' => format!("{:02}", self.month),
                'd' => format!("{:02}", self.day),
                'e' => format!("{:2}", self.day),
                'j' => format!("{:03}", self.ordinal()),
                'B' => month.to_owned(),
                'b' | 'h' => month[..3].to_owned(),
                'A' => weekday.to_owned(),
                'a' => weekday[..3].to_owned(),
                'u' => (self.weekday() + 1).to_string(),
                'w' => ((self.weekday() + 1) % 7).to_string(),
                'F' => self.to_string(),
                'D' | 'x' => format!("{:02}/{:02}/{:02}", self.month, self.day, self.year % 100),
                'H' | 'M' | 'S' => "00".to_owned(),
                'I' => "12".to_owned(),
                'p' => "AM".to_owned(),
                'T' | 'X' => "00:00:00".to_owned(),
                'R' => "00:00".to_owned(),
                'Z' => "UTC".to_owned(),
                'z' => "+0000".to_owned(),
                '-' => match chars.next()? {
                    'd' | 'e' => self.day.to_string(),
                    'm' => self.month.to_string(),
                    'j' => self.ordinal().to_string(),
                    'y' => (self.year % 100).to_string(),
                    'H' | 'M' | 'S' => "0".to_owned(),
                    'I' => "12".to_owned(),
                    _ => return None,
                },
                '%' => "%".to_owned(),
                _ => return None,
            };
            out.push_str(&text);
        }
        Some(out)
    }
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidDate { found: text.chars().take(40).collect() };
        let number = |range: std::ops::Range<usize>| -> Option<u16> {
            text.get(range).filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
        };
        let shape = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
        let parts = number(0..4).zip(number(5..7)).zip(number(8..10)).filter(|_| shape);
        let ((year, month), day) = parts.ok_or_else(invalid)?;
        Self::new(year, month as u8, day as u8).map_err(|_| invalid())
    }
}

impl TryFrom<String> for Date {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        text.parse().expect("a date")
    }

    #[test]
    fn strftime_writes_what_python_writes() {
        let day = date("2026-01-02");
        let all = "%Y-%m-%d|%d %b %Y|%B %d, %Y|%A %a %j %e %-d %y %H:%M:%S %I %p %u %w %F %D %%";
        let want = "2026-01-02|02 Jan 2026|January 02, 2026|Friday Fri 002  2 2 26 00:00:00 12 AM 5 5 2026-01-02 01/02/26 %";
        assert_eq!(day.strftime(all).as_deref(), Some(want));
        assert_eq!(day.strftime("%Q"), None);
        assert_eq!(day.strftime("%"), None);
    }

    #[test]
    fn weekdays_and_leap_years_are_right() {
        for (text, want) in [
            ("2000-02-29", "Tuesday 060"),
            ("1900-03-01", "Thursday 060"),
            ("2024-12-31", "Tuesday 366"),
            ("0001-01-01", "Monday 001"),
        ] {
            assert_eq!(date(text).strftime("%A %j").as_deref(), Some(want), "{text}");
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in [
            "2026-02-29",
            "1900-02-29",
            "2026-13-01",
            "2026-00-10",
            "0000-01-01",
            "2026-1-2",
            "2026/01/02",
            "",
            "２026-01-0",
        ] {
            assert!(matches!(text.parse::<Date>(), Err(Error::InvalidDate { .. })), "{text}");
        }
    }

    #[test]
    fn unix_time_becomes_the_utc_day() {
        for (seconds, want) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (1_767_312_000, "2026-01-02"),
        ] {
            assert_eq!(Date::from_unix_seconds(seconds).expect("in range").to_string(), want);
        }
        assert!(Date::from_unix_seconds(u64::MAX / 2).is_err());
    }
}
