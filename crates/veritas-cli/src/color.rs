//! Whether to use colours: what the user says, else what stdout and the environment say.

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::ValueEnum;
use veritas_runtime::Paint;

use crate::args::Color;

/// What `--color` says, found before the command line is parsed, since errors of parsing are printed by it too.
pub(crate) fn asked(args: impl IntoIterator<Item = OsString>) -> Color {
    let mut args =
        args.into_iter().map_while(|arg| (arg != "--").then(|| arg.to_string_lossy().into_owned()));
    let mut asked = Color::Auto;
    while let Some(arg) = args.next() {
        let value = match arg.strip_prefix("--color") {
            Some("") => args.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        // A value that makes no sense is the parser's to report.
        asked = value.and_then(|value| Color::from_str(&value, false).ok()).unwrap_or(asked);
    }
    asked
}

/// How texts on stdout are set: with [`Color::Auto`] in colour on a terminal, unless `NO_COLOR` is set or the terminal is
/// a dumb one.
pub(crate) fn stdout(color: Color) -> Paint {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Paint::new(match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_of_colours_is_found_wherever_it_stands() {
        let find = |args: &[&str]| asked(args.iter().map(OsString::from));
        assert_eq!(find(&["veritas-sdr", "run", "x"]), Color::Auto);
        assert_eq!(find(&["veritas-sdr", "run", "--color", "never"]), Color::Never);
        assert_eq!(find(&["veritas-sdr", "--color=always", "run"]), Color::Always);
        assert_eq!(find(&["veritas-sdr", "run", "--", "--color=always"]), Color::Auto);
        assert_eq!(find(&["veritas-sdr", "--color"]), Color::Auto);
        assert_eq!(find(&["veritas-sdr", "--color", "mauve"]), Color::Auto);
    }
}
