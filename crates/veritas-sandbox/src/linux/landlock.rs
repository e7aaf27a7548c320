//! Landlock: no path, no TCP port, no abstract socket and no signal beyond this process, by a rule besides seccomp.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use rustix::fs::{Mode, OFlags};

use crate::Error;

/// The newest interface that we know; the kernel applies what it knows of it.
const NEWEST: ABI = ABI::V10;

/// Forbids everything that this kernel's Landlock can forbid. Descriptors that are open stay usable.
pub(super) fn apply() -> Result<(), Error> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(|error| Error::Landlock { reason: error.to_string() })?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(Error::Landlock { reason: "this kernel has it not, or has it switched off".to_owned() });
    }
    Ok(())
}

/// Tries to open the root folder for reading, which everybody may without Landlock.
pub(super) fn observe() -> Result<(), String> {
    match rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => Ok(()),
        Err(error) => Err(format!("opening the root folder gives {error}, not EACCES")),
        Ok(_) => Err("the root folder can be opened".to_owned()),
    }
}
