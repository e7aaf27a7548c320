//! The one thread that templates are compiled and rendered on after `start_render_thread`. It is the process's, so these
//! tests have a process of their own.

mod nested;

use std::thread;

use veritas_tokenizer::chat::start_render_thread;

#[test]
fn templates_nested_without_end_do_not_overflow_the_stack_of_the_render_thread() {
    start_render_thread().unwrap();
    start_render_thread().unwrap();
    nested::hostile_templates_are_answered();
}

#[test]
fn every_caller_gets_the_text_of_its_own_chat() {
    start_render_thread().unwrap();
    let render = |n: usize| nested::render(&format!("{{{{ messages[0].content }}}} {n}"));
    thread::scope(|scope| {
        let callers = (0..50).map(|n| scope.spawn(move || render(n))).collect::<Vec<_>>();
        for (n, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.join().unwrap(), Ok(format!("Hi {n}")));
        }
    });
}

/// Runs the test below in a process that has address space for the stack of the render thread and for some heap, but not
/// for a stack beside it.
#[cfg(target_os = "linux")]
#[test]
fn templates_render_where_no_more_threads_can_be_started() {
    use veritas_tokenizer::chat::limits::MAX_STACK_BYTES;
    let kib = (MAX_STACK_BYTES + (96 << 20)) >> 10;
    let child = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--test-threads=1", "--nocapture", "without_threads"])
        // Else the allocator reserves address space for each thread.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && told.contains("1 passed"),
        "{told}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "templates_render_where_no_more_threads_can_be_started runs it with less address space"]
fn without_threads() {
    use veritas_tokenizer::chat::limits::COMPILE_STACK_BYTES;
    start_render_thread().unwrap();
    let another = thread::Builder::new().stack_size(COMPILE_STACK_BYTES).spawn(|| ());
    assert!(another.is_err(), "the limit leaves room for a thread");
    assert_eq!(nested::render("{{ messages[0].content }}"), Ok("Hi".to_owned()));
    nested::hostile_templates_are_answered();
}
