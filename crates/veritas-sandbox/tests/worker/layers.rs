//! Which layers are in force, as the worker reports and as the kernel shows from outside.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use veritas_sandbox::{Layer, Limits, Policy, State};

use crate::start::{Confined, copied_program, machine_has_landlock, machine_has_namespaces};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("refusing_the_network_binds_every_thread_and_child", refusing_the_network_binds_every_thread_and_child),
    ("the_report_says_what_the_machine_allows", the_report_says_what_the_machine_allows),
    (
        "a_required_layer_that_cannot_be_had_stops_the_start",
        a_required_layer_that_cannot_be_had_stops_the_start,
    ),
    ("layers_that_are_off_are_reported_as_off", layers_that_are_off_are_reported_as_off),
    ("the_kernel_shows_the_same_from_outside", the_kernel_shows_the_same_from_outside),
    ("each_layer_holds_where_another_is_missing", each_layer_holds_where_another_is_missing),
    ("everything_holds_for_a_user_without_privileges", everything_holds_for_a_user_without_privileges),
    (
        "everything_holds_in_a_container_without_namespaces",
        everything_holds_in_a_container_without_namespaces,
    ),
];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn refusing_the_network_binds_every_thread_and_child() {
    assert!(veritas_sandbox::network_refused());
    let status = Command::new("/proc/self/exe").arg("refuse-network").status().unwrap();
    assert!(status.success());
}

fn the_report_says_what_the_machine_allows() {
    let confined = Confined::plain("wait");
    let report = &confined.report;
    assert_eq!(report.missing(Layer::ALWAYS_REQUIRED).count(), 0, "{report:?}");
    let state = |allowed| if allowed { State::Enforced } else { State::Unavailable };
    assert_eq!(report.state(Layer::Namespaces), state(machine_has_namespaces()), "{report:?}");
    assert_eq!(report.state(Layer::Landlock), state(machine_has_landlock()), "{report:?}");
    for (layer, state, reason) in report.iter() {
        assert_eq!(state == State::Enforced, reason.is_none(), "{layer}: {reason:?}");
    }
}

fn a_required_layer_that_cannot_be_had_stops_the_start() {
    // A control group with a limit that no kernel takes cannot be had anywhere.
    let mut policy = Policy::default();
    policy.cgroup.processes = u64::MAX;
    policy.require([Layer::Cgroup]);
    let error = Confined::start(&policy, Limits::default(), Vec::new(), "wait").err().unwrap();
    assert!(error.contains("requires the layer cgroup"), "{error}");
    let strict = Confined::start(&Policy::strict(), Limits::default(), Vec::new(), "wait");
    match strict {
        Ok(confined) => assert_eq!(confined.report.missing(Layer::ALL).count(), 0),
        Err(error) => assert!(error.contains("requires the layer"), "{error}"),
    }
    // A worker that was started without namespaces cannot confine itself under a policy that requires them.
    let without = Policy::parse("[layers]\noff = [\"namespaces\"]\n").unwrap();
    let spec = veritas_sandbox::SpawnSpec {
        args: &["worker", "0"],
        descriptors: Vec::new(),
        policy: &without,
        allow_missing: false,
    };
    let worker = veritas_sandbox::spawn(spec).unwrap();
    let mut policy = Policy::default();
    policy.require([Layer::Namespaces]);
    let error = Confined::order(worker, &policy, Limits::default(), "wait").err().unwrap();
    assert!(error.contains("requires the layer namespaces"), "{error}");
}

fn layers_that_are_off_are_reported_as_off() {
    let policy = Policy::parse("[layers]\noff = [\"namespaces\", \"landlock\", \"cgroup\"]\n").unwrap();
    let confined = Confined::start(&policy, Limits::default(), Vec::new(), "wait").unwrap();
    let off = [Layer::Namespaces, Layer::Landlock, Layer::Cgroup];
    for layer in off {
        assert_eq!(confined.report.state(layer), State::Off);
    }
    assert_eq!(confined.report.missing(Layer::ALWAYS_REQUIRED).count(), 0);
    let status = Status::of(confined.worker.pid(), "status");
    // Root gives its user id up where no namespace has done so.
    if is_root() {
        assert_eq!(status.field("Uid"), "65534\t65534\t65534\t65534");
        assert_eq!(status.field("Gid"), "65534\t65534\t65534\t65534");
        assert_eq!(status.field("Groups"), "");
    }
}

/// A file of `/proc/PID` with lines of a name and a value.
struct Status {
    text: String,
}

impl Status {
    fn of(pid: u32, file: &str) -> Self {
        Self { text: fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap() }
    }

    fn field(&self, name: &str) -> String {
        let mut lines = self.text.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned())).unwrap()
    }
}

fn the_kernel_shows_the_same_from_outside() {
    // A descriptor that a careless library left inheritable must not arrive.
    let leak = fs::File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let confined = Confined::plain("wait");
    let pid = confined.worker.pid();
    let mut n_threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let task = task.unwrap().file_name().into_string().unwrap();
        let status = Status::of(pid, &format!("task/{task}/status"));
        assert_eq!(status.field("Seccomp"), "2");
        assert_eq!(status.field("NoNewPrivs"), "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            // The bounding set of who never had a capability is of no use, and cannot be emptied by them.
            if set != "CapBnd" || confined.worker.facts().namespaces_missing.is_none() {
                assert_eq!(status.field(set), "0000000000000000", "{set}");
            }
        }
        n_threads += 1;
    }
    assert_eq!(n_threads, 2, "the first thread and the one that was started");
    let status = Status::of(pid, "status");
    let expected_uid = if is_root() { 65534 } else { rustix::process::geteuid().as_raw() };
    assert!(status.field("Uid").starts_with(&format!("{expected_uid}\t")), "{}", status.field("Uid"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name in parentheses: state, parent, process group, session.
    let fields = stat.rsplit(") ").next().unwrap().split(' ').collect::<Vec<_>>();
    assert_eq!(
        (fields[2], fields[3]),
        (pid.to_string().as_str(), pid.to_string().as_str()),
        "its own session"
    );
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (name, value) in [("Max core file size", "0"), ("Max file size", "0"), ("Max open files", "64")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [value, value], "{name}");
    }
    if is_root() {
        seen_by_root(&confined);
    }
    drop(leak);
}

/// What the kernel shows of an undumpable process to root alone.
fn seen_by_root(confined: &Confined) {
    let pid = confined.worker.pid();
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(environ.is_empty(), "{environ:?}");
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), target.display().to_string())
    });
    let descriptors = descriptors.collect::<BTreeSet<_>>();
    assert_eq!(descriptors.len(), 4, "{descriptors:?}");
    for (number, target) in &descriptors {
        let expected = if number == "3" { "socket:" } else { "/dev/null" };
        assert!(target.starts_with(expected), "{descriptors:?}");
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(maps.lines().count() > 5);
    for line in maps.lines() {
        let access = line.split(' ').nth(1).unwrap();
        assert!(!(access.contains('w') && access.contains('x')), "{line}");
    }
    if confined.worker.facts().namespaces_missing.is_none() {
        for name in ["user", "mnt", "net", "pid", "ipc", "uts"] {
            let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{name}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "{name}");
        }
        let root = format!("/proc/{pid}/root");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert!(!fs::exists(format!("{root}/etc/passwd")).unwrap());
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" ro,nosuid,nodev,noexec"), "{mounts}");
        let interfaces = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
        assert_eq!(
            interfaces.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count(),
            0
        );
    }
}

/// Lets two calls on paths through the filter, so that what stands behind it must refuse them.
fn each_layer_holds_where_another_is_missing() {
    let base = Policy::default_text();
    let open = "[[seccomp.allow]]\nwhy = \"for the test\"\ncalls = [\"newfstatat\", \"mkdirat\"]\n\n[probes]";
    let open = base.replacen("[probes]", open, 1);
    let run = |off: &str| {
        let text = open.replacen("off = []", &format!("off = {off}"), 1);
        let policy = Policy::parse(&text).unwrap();
        let mut confined = Confined::start(&policy, Limits::default(), Vec::new(), "paths").unwrap();
        let states = (confined.report.state(Layer::Namespaces), confined.report.state(Layer::Landlock));
        (states, confined.hear::<(Option<i32>, Option<i32>)>())
    };
    if machine_has_namespaces() {
        let (states, (stat, mkdir)) = run("[\"landlock\"]");
        assert_eq!(states, (State::Enforced, State::Off));
        assert_eq!((stat, mkdir), (Some(libc::ENOENT), Some(libc::ENOENT)), "the root folder is empty");
    }
    if machine_has_landlock() {
        let (states, (stat, mkdir)) = run("[\"namespaces\"]");
        assert_eq!(states, (State::Off, State::Enforced));
        // Landlock does not hide what exists; it refuses to make anything.
        assert_eq!((stat, mkdir), (None, Some(libc::EACCES)));
    }
}

/// Set in a run of all tests that another run has started.
const NESTED: &str = "VERITAS_TEST_NESTED";

fn everything_holds_for_a_user_without_privileges() {
    use std::os::unix::process::CommandExt;
    // The run of somebody else is such a user's already.
    if is_root() && std::env::var_os(NESTED).is_none() {
        let (_folder, program) = copied_program();
        all_pass(Command::new(program).uid(65534).gid(65534).current_dir("/"));
    }
}

fn everything_holds_in_a_container_without_namespaces() {
    if std::env::var_os(NESTED).is_none() {
        all_pass(Command::new("/proc/self/exe").arg("contained"));
    }
}

fn all_pass(command: &mut Command) {
    // What is expected of the control group is expected of the run outside.
    let output = command.env(NESTED, "1").env_remove("VERITAS_TEST_CGROUP").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test result: ok"), "{text}");
}
