//! The sandbox on Linux: 5.9 or newer, x86-64 or AArch64.
//!
//! The supervisor's side is `spawn` (with `child` between clone and exec, `id_map` and `cgroup`) and `worker`; the
//! worker's side is `inherited` and `confine`, with one module a layer. Each layer has a function that applies it and
//! one that observes, by reading back and by trying, whether it is in force.

mod capabilities;
mod cgroup;
mod child;
mod confine;
mod core_dump;
mod descriptors;
mod filter;
mod give_way;
mod id_map;
mod inherited;
mod landlock;
mod namespaces;
mod network;
mod parent;
mod probes;
mod receive;
mod rlimits;
mod signals;
mod spawn;
mod worker;

pub use confine::confine;
pub use give_way::give_way;
pub use inherited::inherited;
pub use network::{network_refused, refuse_network};
pub use probes::probes;
pub use receive::receive;
pub use spawn::spawn;
pub use worker::Worker;

use crate::syscalls::Arch;

/// Whether a worker can be confined here.
pub(crate) const HAS_SANDBOX: bool = true;

/// The architecture that this program was built for.
const ARCH: Arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Aarch64 };

/// The descriptor of the worker's connection; its files follow.
const SOCKET_FD: i32 = 3;

/// The physical memory of the machine in bytes.
fn physical_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}
