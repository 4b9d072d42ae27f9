//! `(word)`, `(word:1.2)`, `[word]` and `BREAK`: `parse_prompt_attention`.

use crate::conditioning::prompt::{Span, weight};

/// How many times a bracket multiplies what is in it.
const BRACKET: f64 = 1.1;

/// A text's parts with their weights.
pub(super) fn spans(text: &str) -> Vec<Span> {
    let mut reader = Reader::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\\' => {
                // Brackets and the backslash itself; before anything else it is left out.
                let escaped = rest[1..].chars().next().filter(|c| r"()[]\".contains(*c));
                reader.push(&rest[1..1 + escaped.map_or(0, char::len_utf8)]);
                1 + escaped.map_or(0, char::len_utf8)
            }
            '(' => {
                reader.round.push(reader.parts.len());
                1
            }
            '[' => {
                reader.square.push(reader.parts.len());
                1
            }
            ':' => match (closing_weight(rest), reader.round.pop()) {
                (Some((length, weight)), Some(from)) => {
                    reader.multiply(from, weight);
                    length
                }
                (Some((length, _)), None) => {
                    reader.text(&rest[..length]);
                    length
                }
                (None, from) => {
                    reader.round.extend(from);
                    reader.text(":");
                    1
                }
            },
            ')' => {
                match reader.round.pop() {
                    Some(from) => reader.multiply(from, BRACKET),
                    None => reader.text(")"),
                }
                1
            }
            ']' => {
                match reader.square.pop() {
                    Some(from) => reader.multiply(from, 1.0 / BRACKET),
                    None => reader.text("]"),
                }
                1
            }
            _ => {
                let end = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                reader.text(&rest[..end]);
                end
            }
        };
        rest = &rest[length..];
    }
    reader.finish()
}

/// The length of `:1.2)` at the start of a text, and its number; what only looks like one is none.
fn closing_weight(text: &str) -> Option<(usize, f64)> {
    let end = text.find(')')?;
    let number = text[1..end].trim();
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    Some((end + 1, weight(number).filter(|_| plain)?))
}

#[derive(Default)]
struct Reader {
    /// Texts with their weights; `None` for `BREAK`, whose weight nobody reads but which separates.
    parts: Vec<(Option<String>, f64)>,
    /// Where brackets were opened.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Reader {
    fn push(&mut self, text: &str) {
        self.parts.push((Some(text.into()), 1.0));
    }

    fn multiply(&mut self, from: usize, by: f64) {
        self.parts[from..]
            .iter_mut()
            .for_each(|(_, weight)| *weight *= by);
    }

    /// A text that may have `BREAK`s in it, with the white space around each.
    fn text(&mut self, text: &str) {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let mut from = 0;
        for (at, word) in text.match_indices("BREAK") {
            let end = at + word.len();
            if is_word(text[..at].chars().next_back()) || is_word(text[end..].chars().next()) {
                continue;
            }
            self.push(text[from..at].trim_end());
            self.parts.push((None, -1.0));
            from = end + (text[end..].len() - text[end..].trim_start().len());
        }
        self.push(&text[from..]);
    }

    /// Open brackets hold to the end; neighbours of one weight are one text.
    fn finish(mut self) -> Vec<Span> {
        for from in std::mem::take(&mut self.round) {
            self.multiply(from, BRACKET);
        }
        for from in std::mem::take(&mut self.square) {
            self.multiply(from, 1.0 / BRACKET);
        }
        let mut spans: Vec<Span> = Vec::new();
        for (text, weight) in self.parts {
            match (text, spans.last_mut()) {
                (None, _) => spans.push(Span::Break),
                (Some(more), Some(Span::Text { text, weight: before })) if *before == weight => {
                    text.push_str(&more)
                }
                (Some(text), _) => spans.push(Span::Text { text, weight }),
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, f64)> {
        let part = |span| match span {
            Span::Text { text, weight } => (text, weight),
            Span::Break => ("BREAK".into(), -1.0),
        };
        spans(text).into_iter().map(part).collect()
    }

    #[test]
    fn the_programs_own_examples_hold() {
        // From the docstring of parse_prompt_attention.
        let cases: [(&str, &[(&str, f64)]); 6] = [
            ("normal text", &[("normal text", 1.0)]),
            (
                "an (important) word",
                &[("an ", 1.0), ("important", 1.1), (" word", 1.0)],
            ),
            ("(unbalanced", &[("unbalanced", 1.1)]),
            (r"\(literal\]", &[("(literal]", 1.0)]),
            ("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]),
            (
                "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
                &[
                    ("a ", 1.0),
                    ("house", 1.573_000_000_000_000_4),
                    (" ", 1.1),
                    ("on", 1.0),
                    (" a ", 1.1),
                    ("hill", 0.55),
                    (", sun, ", 1.1),
                    ("sky", 1.464_100_000_000_000_6),
                    (".", 1.1),
                ],
            ),
        ];
        for (text, parts) in cases {
            let parts: Vec<(String, f64)> = parts
                .iter()
                .map(|(text, weight)| ((*text).into(), *weight))
                .collect();
            assert_eq!(read(text), parts, "{text}");
        }
    }

    #[test]
    fn odd_texts_mean_what_they_mean_there() {
        let cases: [(&str, &[(&str, f64)]); 16] = [
            ("", &[]),
            ("(a: 1.5 ) b", &[("a", 1.5), (" b", 1.0)]),
            ("(a:1.2", &[("a:1.2", 1.1)]),
            ("a:1.2)", &[("a:1.2)", 1.0)]),
            ("[a:1.2]", &[("a:1.2", 1.0 / 1.1)]),
            ("a BREAK b", &[("a", 1.0), ("BREAK", -1.0), ("b", 1.0)]),
            ("(a BREAK b:1.2)", &[("a", 1.2), ("BREAK", -1.0), ("b", 1.2)]),
            ("aBREAK, BREAKb", &[("aBREAK, BREAKb", 1.0)]),
            ("BREAK", &[("", 1.0), ("BREAK", -1.0), ("", 1.0)]),
            ("(a:0)", &[("a", 0.0)]),
            ("(a:-1)", &[("a", -1.0)]),
            ("(a:.5)", &[("a", 0.5)]),
            ("(a:b)", &[("a:b", 1.1)]),
            ("a\\b\\", &[("ab", 1.0)]),
            (
                "ereshkigal (ereshkigal \\(fate\\))",
                &[("ereshkigal ", 1.0), ("ereshkigal (fate)", 1.1)],
            ),
            // A number that is none fails there; here it is text.
            ("(a:1.2.3)", &[("a:1.2.3", 1.1)]),
        ];
        for (text, parts) in cases {
            let parts: Vec<(String, f64)> = parts
                .iter()
                .map(|(text, weight)| ((*text).into(), *weight))
                .collect();
            assert_eq!(read(text), parts, "{text}");
        }
    }

    #[test]
    fn a_hundred_thousand_brackets_are_read() {
        assert_eq!(spans(&"(".repeat(100_000)).len(), 0);
        assert!(read(&format!("{}a", "(".repeat(100_000)))[0].1.is_infinite());
    }
}
