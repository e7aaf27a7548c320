//! The sandbox: how a worker is started, how it confines itself, and how it proves that it is confined.
//!
//! The supervisor calls [`spawn`], which re-executes the same binary with nothing but the descriptors that it is
//! given. The worker calls [`inherited`] and then [`confine`], before it looks at the first byte of a model. What is
//! in force afterwards is a [`Report`]: not what was asked for, but what the worker observed by trying. [`probes`]
//! tries to break out, for `veritas-sdr sandbox test`. Every process of the binary, the supervisor and the clients
//! too, calls [`refuse_network`] first.
//!
//! What is allowed and what is required is data: [`Policy`], read from `policy/default.toml`.
//!
//! The parts that need an operating system stand in one module per system behind the same names. At present there
//! is one, for Linux on x86-64 and AArch64; elsewhere everything compiles, and what would confine is
//! [`Error::Unsupported`], unless the operator has allowed a worker to run without ([`missing()`]).

#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]
mod constants;
mod error;
mod exit;
mod layer;
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]
mod limits;
mod missing;
#[cfg(any(test, not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))))]
#[cfg_attr(test, allow(dead_code, unreachable_pub))]
mod no_sandbox;
mod policy;
mod probe;
mod report;
mod spec;
mod syscalls;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "linux/mod.rs"]
mod platform;
#[cfg(all(unix, not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))))]
#[path = "unconfined.rs"]
mod platform;
#[cfg(not(unix))]
#[path = "unsupported.rs"]
mod platform;

/// The module of systems without a sandbox, to be tested where there is one.
#[cfg(all(test, target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "unconfined.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod platform_without_a_sandbox;

pub use error::Error;
pub use exit::Exit;
pub use layer::{Layer, State};
pub use missing::missing;
pub use platform::{
    Worker, confine, give_way, inherited, network_refused, probes, receive, refuse_network, spawn,
};
pub use policy::{CgroupLimits, Condition, Group, Operand, Policy, Refusal, Rlimits, Seccomp, Size, Test};
pub use probe::{Probe, ProbeContext};
pub use report::{Observation, Report};
pub use spec::{Descriptor, Inherited, Limits, Socket, SpawnFacts, SpawnSpec};
pub use syscalls::{Arch, number as syscall_number};
