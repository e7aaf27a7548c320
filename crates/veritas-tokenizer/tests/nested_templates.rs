//! Templates that nest without end, each on a thread of its own.

mod nested;

#[test]
fn templates_nested_without_end_do_not_overflow_the_stack() {
    nested::hostile_templates_are_answered();
}
