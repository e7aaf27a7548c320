//! Real workers: started, confined, and asked to break out.
//!
//! A worker is this same program, executed again, so the program is a test without the usual harness. Called without
//! a role it runs the tests one after the other; words among its arguments choose those whose names contain them.

#![allow(clippy::print_stdout)]

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod cgroup;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod escape;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod layers;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod life;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod role;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod start;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() {
    let args = std::env::args().skip(1).collect::<Vec<_>>();
    let words = args.iter().map(String::as_str).collect::<Vec<_>>();
    if let [role, rest @ ..] = words.as_slice()
        && role::run(role, rest)
    {
        return;
    }
    // As in the real program: everything below works although no process can reach a network.
    veritas_sandbox::refuse_network().expect("the network is refused");
    let wanted = words.into_iter().filter(|word| !word.starts_with('-')).collect::<Vec<_>>();
    let tests = [layers::TESTS, escape::TESTS, life::TESTS, cgroup::TESTS].concat();
    let mut n_run = 0;
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word)) {
            // A test that fails panics, which ends the program with the reason.
            print!("test {name} ... ");
            test();
            println!("ok");
            n_run += 1;
        }
    }
    println!("\ntest result: ok. {n_run} passed\n");
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {
    use veritas_sandbox::{Error, Limits, Policy, SpawnFacts, SpawnSpec};
    let policy = Policy::default();
    let spec = SpawnSpec { args: &[], descriptors: Vec::new(), policy: &policy, allow_missing: false };
    assert!(matches!(veritas_sandbox::spawn(spec), Err(Error::Unsupported { .. })));
    let facts = SpawnFacts::default();
    let confined =
        veritas_sandbox::confine(&policy, &Limits::default(), &facts, || Ok::<_, std::io::Error>(()));
    assert!(matches!(confined, Err(Error::Unsupported { .. })));
    println!("this platform has no sandbox yet, and says so");
}
