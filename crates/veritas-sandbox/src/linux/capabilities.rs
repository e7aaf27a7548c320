//! Giving up every capability, and root's user id where no user namespace did it already.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::id_map::NOBODY;
use crate::Error;

/// Capabilities have numbers below this: the sets are 64 bits wide.
const N_CAPABILITIES: u32 = 64;

/// Empties all sets of capabilities of this thread, for good. `in_user_namespace` says that root is not root outside.
pub(super) fn drop_all(in_user_namespace: bool) -> Result<(), Error> {
    let error = |step| move |source: Errno| Error::Capabilities { step, source: source.into() };
    let before = capabilities(None).map_err(error("read the capabilities"))?;
    // Only who may shrink the bounding set can do so. For others it does not matter: it bounds what executing a
    // program could add, and no_new_privs and the empty sets leave nothing to add.
    if before.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (0..N_CAPABILITIES).map(nth) {
            match capability_is_in_bounding_set(capability) {
                Ok(true) => remove_capability_from_bounding_set(capability)
                    .map_err(error("shrink the bounding set of capabilities"))?,
                Ok(false) => {}
                // The first number that this kernel does not know.
                Err(Errno::INVAL) => break,
                Err(source) => return Err(error("read the bounding set of capabilities")(source)),
            }
        }
    }
    let is_root = rustix::process::geteuid().is_root();
    let may_change_ids = before.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID);
    if is_root && !in_user_namespace && may_change_ids {
        become_nobody()?;
    }
    match clear_ambient_capability_set() {
        // Kernels before 4.3 have none; ours does not start there, but the answer is no danger.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(source) => return Err(error("clear the ambient capabilities")(source)),
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(error("give up all capabilities"))
}

/// Reads all sets back.
pub(super) fn observe() -> Result<(), String> {
    let sets = capabilities(None).map_err(|error| format!("the capabilities cannot be read: {error}"))?;
    let left = sets.effective | sets.permitted | sets.inheritable;
    if !left.is_empty() {
        return Err(format!("capabilities are left: {left:?}"));
    }
    Ok(())
}

fn nth(number: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << number)
}

/// Root without a namespace of its own becomes the user that owns nothing, so that an escape finds no file of root's.
fn become_nobody() -> Result<(), Error> {
    // The calls are made directly: the C library's forms speak to all threads, and there is one.
    // SAFETY: numbers alone are passed; the list of groups has length zero.
    let is_nobody = unsafe {
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) == 0
            && libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) == 0
            && libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) == 0
    };
    if !is_nobody {
        let source = std::io::Error::last_os_error();
        return Err(Error::Capabilities { step: "give up root's user id", source });
    }
    Ok(())
}
