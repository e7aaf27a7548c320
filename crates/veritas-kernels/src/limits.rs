//! What this machine can do at most, measured: the yardsticks for speeds.
