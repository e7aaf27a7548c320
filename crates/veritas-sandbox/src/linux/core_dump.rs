//! The memory of a worker goes into no file, and no other process of its user can read it.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit,
};

use crate::Error;

/// No core dump, no tracer, and no owner of `/proc/self` but root.
///
/// It comes after the supervisor has written the maps of ids, because it takes `/proc/PID` away from the supervisor's
/// user.
pub(super) fn refuse() -> Result<(), Error> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|source| Error::NoCoreDump { source: source.into() })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|source| Error::NoCoreDump { source: source.into() })
}

/// Reads both back.
pub(super) fn observe() -> Result<(), String> {
    let core = getrlimit(Resource::Core);
    if core.current != Some(0) || core.maximum != Some(0) {
        return Err(format!("core dumps may have {:?} bytes", core.maximum));
    }
    match dumpable_behavior() {
        Ok(DumpableBehavior::NotDumpable) => Ok(()),
        other => Err(format!("the process is dumpable: {other:?}")),
    }
}
