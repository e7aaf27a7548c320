//! What the configuration says of single users: with whom they share, and how much of the computation is theirs.

use std::fmt;
use std::str::FromStr;

/// The greatest weight.
const WEIGHT_MAX: u32 = 1000;

/// Users in a group at most.
const MEMBERS_MAX: usize = 1024;

/// Users who share cached prefixes with each other, written `1000+1001`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharingGroup {
    /// At least two, ascending.
    uids: Vec<u32>,
}

impl SharingGroup {
    /// What can be written, for people.
    pub(super) const FORM: &str = "texts of two or more user ids joined by +, such as \"1000+1001\"";

    /// Whether a user is in it.
    pub fn has(&self, uid: u32) -> bool {
        self.uids.binary_search(&uid).is_ok()
    }
}

impl FromStr for SharingGroup {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut uids = text.split('+').map(uid).collect::<Result<Vec<_>, ()>>()?;
        uids.sort_unstable();
        uids.dedup();
        if (2..=MEMBERS_MAX).contains(&uids.len()) { Ok(Self { uids }) } else { Err(()) }
    }
}

impl fmt::Display for SharingGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uids = self.uids.iter().map(u32::to_string).collect::<Vec<_>>();
        f.write_str(&uids.join("+"))
    }
}

/// A user's share of the computation beside others, written `1000=4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The user.
    pub uid: u32,
    /// From 1; who is not listed has 1.
    pub weight: u32,
}

impl Weight {
    /// What can be written, for people.
    pub(super) const FORM: &str = "texts UID=WEIGHT with a weight from 1 to 1000, such as \"1000=4\"";
}

impl FromStr for Weight {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (user, weight) = text.split_once('=').ok_or(())?;
        let weight = uid(weight)?;
        if (1..=WEIGHT_MAX).contains(&weight) { Ok(Self { uid: uid(user)?, weight }) } else { Err(()) }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.uid, self.weight)
    }
}

/// A number of digits alone. The last one is what system calls take for "none".
fn uid(text: &str) -> Result<u32, ()> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u32>().ok().filter(|&number| is_number && number != u32::MAX);
    number.ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_weights_are_printed_as_they_are_read() {
        for text in ["1000+1001", "0+1+2"] {
            assert_eq!(text.parse::<SharingGroup>().unwrap().to_string(), text);
        }
        assert_eq!("7+5+7".parse::<SharingGroup>().unwrap().to_string(), "5+7");
        assert_eq!("1000=4".parse::<Weight>().unwrap(), Weight { uid: 1000, weight: 4 });
        let group = "5+7".parse::<SharingGroup>().unwrap();
        assert!(group.has(5) && group.has(7) && !group.has(6));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["", "5", "5+", "5+5", "5+-7", "5 + 7", "5+4294967295"] {
            assert!(text.parse::<SharingGroup>().is_err(), "{text}");
        }
        for text in ["", "5", "5=", "=5", "5=0", "5=1001", "5=+1"] {
            assert!(text.parse::<Weight>().is_err(), "{text}");
        }
    }
}
