//! What can go wrong, one variant a step.

use std::io;

use crate::Layer;

/// Why a sandbox could not be made, or a worker not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No sandbox exists for this platform yet.
    #[error("there is no sandbox for {platform} yet")]
    Unsupported {
        /// The operating system and the architecture.
        platform: String,
    },
    /// A policy that is malformed or says what cannot be.
    #[error("sandbox policy, line {line}: {message}")]
    Policy {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A layer that the policy requires cannot be applied.
    #[error("the sandbox policy requires the layer {layer}, and it cannot be applied: {reason}")]
    Required {
        /// The layer.
        layer: Layer,
        /// Why it cannot be applied.
        reason: String,
    },
    /// A layer was applied without an error, and yet is not in force.
    #[error("the sandbox layer {layer} was applied and is not in force: {reason}")]
    NotInForce {
        /// The layer.
        layer: Layer,
        /// What was seen.
        reason: String,
    },
    /// The filter of system calls cannot be built from the policy.
    #[error("the filter of system calls cannot be built: {reason}")]
    BuildFilter {
        /// Why not.
        reason: String,
    },
    /// The kernel refuses the filter of system calls.
    #[error("the kernel refuses the filter of system calls: {reason}")]
    InstallFilter {
        /// Why.
        reason: String,
    },
    /// The running program cannot be opened for another execution.
    #[error("cannot open the running program: {source}")]
    OpenProgram {
        /// The system's reason.
        source: io::Error,
    },
    /// The worker's arguments are too long, or hold a zero byte.
    #[error("the worker's arguments have {bytes} bytes (at most {max}), or hold a zero byte")]
    Arguments {
        /// Their length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More descriptors than a worker can be given.
    #[error("{count} descriptors for a worker; at most {max}")]
    TooManyDescriptors {
        /// How many there were.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The thread that starts workers cannot be started, or is gone.
    #[error("the thread that starts workers cannot run: {reason}")]
    SpawnThread {
        /// Why.
        reason: String,
    },
    /// The connection between supervisor and worker cannot be made.
    #[error("cannot connect a worker: {source}")]
    Connect {
        /// The system's reason.
        source: io::Error,
    },
    /// The process of the worker cannot be made.
    #[error("cannot make the worker's process: {source}")]
    Clone {
        /// The system's reason.
        source: io::Error,
    },
    /// The user and group ids of the worker's namespace cannot be written.
    #[error("cannot write {file} of the worker: {source}")]
    IdMaps {
        /// `uid_map`, `gid_map` or `setgroups`.
        file: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The new process failed before it ran the program.
    #[error("the worker's process failed to {step}: {source}")]
    Child {
        /// What it was doing.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The worker cannot be waited for.
    #[error("cannot wait for the worker: {source}")]
    Wait {
        /// The system's reason.
        source: io::Error,
    },
    /// What was inherited has been taken already; it can be taken once.
    #[error("the inherited descriptors have been taken already")]
    AlreadyTaken,
    /// A descriptor is not what a worker is given: the process was not started as a worker.
    #[error("descriptor {fd} is not {expected}: this process was not started as a worker")]
    NotInherited {
        /// The descriptor.
        fd: i32,
        /// What it should be.
        expected: &'static str,
    },
    /// The process has several threads already, and what confines one would not confine the others.
    #[error("the process has threads before it is confined")]
    Threads,
    /// The environment cannot be cleared.
    #[error("the environment cannot be cleared")]
    Environment,
    /// An empty root folder cannot be made.
    #[error("cannot {step} for an empty root folder: {source}")]
    EmptyRoot {
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Descriptors cannot be closed.
    #[error("cannot close the descriptors that are not the worker's: {source}")]
    CloseDescriptors {
        /// The system's reason.
        source: io::Error,
    },
    /// A limit cannot be set.
    #[error("cannot set the limit {name} to {value}: {source}")]
    Rlimit {
        /// The limit's name in the policy.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// Capabilities cannot be given up, or root's user id cannot.
    #[error("cannot {step}: {source}")]
    Capabilities {
        /// What was tried.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Core dumps cannot be switched off.
    #[error("cannot switch core dumps off: {source}")]
    NoCoreDump {
        /// The system's reason.
        source: io::Error,
    },
    /// `no_new_privs` cannot be set.
    #[error("cannot set no_new_privs: {source}")]
    NoNewPrivs {
        /// The system's reason.
        source: io::Error,
    },
    /// Landlock cannot be applied.
    #[error("cannot apply Landlock: {reason}")]
    Landlock {
        /// Why.
        reason: String,
    },
    /// A signal's disposition cannot be set.
    #[error("cannot set what a signal does: {source}")]
    Signals {
        /// The system's reason.
        source: io::Error,
    },
    /// The worker cannot be bound to its supervisor's life.
    #[error("cannot be bound to the supervisor's life: {source}")]
    ParentDeath {
        /// The system's reason.
        source: io::Error,
    },
    /// The supervisor has ended while the worker started.
    #[error("the supervisor has ended")]
    ParentGone,
    /// The caller's own threads cannot be started.
    #[error("cannot start the worker's threads: {source}")]
    StartThreads {
        /// The caller's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
