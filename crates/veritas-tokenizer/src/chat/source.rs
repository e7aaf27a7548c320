//! What Hugging Face's templates may hold beyond minijinja's dialect.
//!
//! `{% generation %}` blocks mark the assistant's tokens for training and print their content: they become `with`
//! blocks, which scope alike and print the same. A sum with an operand that is marked `|safe` is markup in Python, which
//! escapes its other operands: they get that escape as a filter.

use std::borrow::Cow;

/// Name of the filter that escapes an operand of a sum with markup.
pub(super) const ESCAPE_FILTER: &str = "markup_escape";

/// Bytes of a tag that is looked at for sums with markup, in quadratic time. Published ones have 120.
const MAX_SUM_BYTES: usize = 2048;

/// The source in minijinja's dialect. Comments and `raw` blocks stay as they are.
pub(super) fn in_our_dialect(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") && !source.contains("safe") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = match rest.as_bytes().get(1) {
            Some(b'%') => tag_end(rest, "%}"),
            Some(b'{') if !raw => tag_end(rest, "}}"),
            Some(b'#') if !raw => rest.find("#}").map_or(rest.len(), |end| end + 2),
            _ => 1,
        };
        let tag = &rest[..end];
        if let Some(sum) = (!raw).then(|| sum_with_markup(tag)).flatten() {
            out.push_str(&sum);
            rest = &rest[end..];
            continue;
        }
        match tag_name(tag) {
            Some((_, "endraw")) => raw = false,
            Some(_) if raw => {}
            Some((_, "raw")) => raw = true,
            Some((start, name @ ("generation" | "endgeneration"))) => {
                out.push_str(&tag[..start]);
                out.push_str(if name == "generation" { "with" } else { "endwith" });
                out.push_str(&tag[start + name.len()..]);
                rest = &rest[end..];
                continue;
            }
            _ => {}
        }
        out.push_str(tag);
        rest = &rest[end..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The tag of an expression that is a sum with an operand marked `|safe`, the other operands escaped. `None` for every
/// other tag, also where the sum stands within a larger expression.
fn sum_with_markup(tag: &str) -> Option<String> {
    if tag.len() > MAX_SUM_BYTES || !tag.contains("safe") {
        return None;
    }
    let inner = tag.strip_prefix("{{")?.strip_suffix("}}")?;
    let (open, inner) = match inner.strip_prefix('-') {
        Some(inner) => ("{{-", inner),
        None => ("{{", inner),
    };
    let (inner, close) = match inner.strip_suffix('-') {
        Some(inner) => (inner, "-}}"),
        None => (inner, "}}"),
    };
    let operands = operands(inner)?;
    let is_safe = |operand: &str| {
        operand.trim_end().strip_suffix("safe").is_some_and(|rest| rest.trim_end().ends_with('|'))
    };
    if operands.len() < 2 || !operands.iter().any(|operand| is_safe(operand)) {
        return None;
    }
    let escaped = operands.iter().map(|operand| match is_safe(operand) {
        true => operand.trim().to_owned(),
        false => format!("({})|{ESCAPE_FILTER}", operand.trim()),
    });
    Some(format!("{open} {} {close}", escaped.collect::<Vec<_>>().join(" + ")))
}

/// The operands of a sum; `None` if any other operator stands beside the additions.
fn operands(expression: &str) -> Option<Vec<&str>> {
    let (mut operands, mut start, mut depth, mut quote, mut escaped) = (Vec::new(), 0, 0usize, None, false);
    for (at, c) in expression.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.checked_sub(1)?,
            (None, '+') if depth == 0 => {
                operands.push(&expression[start..at]);
                start = at + 1;
            }
            // A space between two words stands beside an operator such as `if`.
            (None, c) if depth == 0 && c.is_whitespace() => {
                let edge = |c: Option<char>| c.is_none_or(|c| matches!(c, '+' | '|'));
                let before = expression[..at].trim_end().chars().next_back();
                if !edge(before) && !edge(expression[at..].trim_start().chars().next()) {
                    return None;
                }
            }
            (None, '~' | '=' | '<' | '>' | ',' | '*' | '/' | '%' | '-' | '!') if depth == 0 => return None,
            _ => {}
        }
    }
    operands.push(&expression[start..]);
    Some(operands)
}

/// Where a tag ends, quoted strings skipped.
fn tag_end(tag: &str, close: &str) -> usize {
    let bytes = tag.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), b) if b == open => quote = None,
            (None, b @ (b'"' | b'\'')) => quote = Some(b),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return at + close.len(),
            _ => {}
        }
        at += 1;
    }
    tag.len()
}

/// The name of a block tag and where it starts.
fn tag_name(tag: &str) -> Option<(usize, &str)> {
    let inner = tag.strip_prefix("{%")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
    let start = tag.len() - inner.len();
    let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len());
    Some((start, &inner[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_with_tags_and_nothing_else_changes() {
        for (source, want) in [
            ("{% generation %}x{% endgeneration %}", "{% with %}x{% endwith %}"),
            ("{%- generation -%}x{%+ endgeneration -%}", "{%- with -%}x{%+ endwith -%}"),
            ("generation {{ 'generation %}' }}", "generation {{ 'generation %}' }}"),
            ("{# {% generation %} #}{ {%", "{# {% generation %} #}{ {%"),
            ("{% if add_generation_prompt %}", "{% if add_generation_prompt %}"),
            ("{% set x = '{% generation %}' %}", "{% set x = '{% generation %}' %}"),
            (
                "{% raw %}{% generation %}{% endraw %}{%generation%}",
                "{% raw %}{% generation %}{% endraw %}{%with%}",
            ),
            ("{{ \"a\\\"}}\" }}{% generation", "{{ \"a\\\"}}\" }}{% with"),
        ] {
            assert_eq!(in_our_dialect(source), want);
        }
    }

    #[test]
    fn sums_with_markup_escape_their_other_operands() {
        for (source, want) in [
            (
                "{{ 'a'|safe + b + c | tojson() }}",
                "{{ 'a'|safe + (b)|markup_escape + (c | tojson())|markup_escape }}",
            ),
            ("{{- b['x y'] + \"+'\"| safe -}}", "{{- (b['x y'])|markup_escape + \"+'\"| safe -}}"),
            ("{{ a + b }}{{ 'safe' + b }}", "{{ a + b }}{{ 'safe' + b }}"),
            ("{{ a|safe + b if c else d }}", "{{ a|safe + b if c else d }}"),
            ("{{ f(a|safe + b) }}{{ a|safe }}", "{{ f(a|safe + b) }}{{ a|safe }}"),
        ] {
            assert_eq!(in_our_dialect(source), want);
        }
    }
}
