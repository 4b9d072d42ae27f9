//! compel's grammar, as its combinators read a text: at every place the first alternative that fits.

use crate::{
    Error, Result,
    conditioning::prompt::{DEEPEST, Join, Joined, Span},
};

/// The characters that mean something; a backslash before one takes that away.
const MEANING: &str = "()\",.+-=";

/// A text's parts.
///
/// # Errors
/// If a blend or a conjunction does not fit together, or an operator is asked for that is not there.
pub(super) fn read(text: &str) -> Result<Joined> {
    if text.trim().is_empty() {
        return Ok(Joined::one(vec![Span::of("", 1.0)]));
    }
    let text = &spaced(text);
    let mut reader = Reader { text, depth: 0 };
    if let Some(joined) = reader.joined()? {
        return Ok(joined);
    }
    let (fragments, _) = reader.fragments(0, Place::Prompt)?;
    Ok(Joined::one(fused(fragments)))
}

/// The text with a space behind every comma that stands before something else.
fn spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        spaced.push(c);
        if c == ','
            && let Some(next) = chars.next_if(|next| !next.is_whitespace())
        {
            spaced.extend([' ', next]);
        }
    }
    spaced
}

/// A piece of text with its weight.
type Fragment = (String, f64);
/// What was read, and where it ends.
type Read<T> = Option<(T, usize)>;

/// Where fragments stand, which says what may be one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On the outside, where anything up to white space is a word.
    Prompt,
    /// In brackets or quotes.
    Inside,
}

struct Reader<'a> {
    text: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn rest(&self, at: usize) -> &str {
        self.text.get(at..).unwrap_or_default()
    }

    /// Behind white space.
    fn skip(&self, at: usize) -> usize {
        at + self.rest(at).len() - self.rest(at).trim_start().len()
    }

    /// Behind a literal, which white space may stand before.
    fn literal(&self, at: usize, literal: &str) -> Option<usize> {
        let at = self.skip(at);
        self.rest(at).starts_with(literal).then(|| at + literal.len())
    }

    /// Fragments, as many as there are.
    fn fragments(&mut self, mut at: usize, place: Place) -> Result<(Vec<Fragment>, usize)> {
        let mut fragments = Vec::new();
        while let Some((more, end)) = self.fragment(self.skip(at), place)? {
            fragments.extend(more);
            at = end;
        }
        Ok((fragments, at))
    }

    /// One fragment, weighted or not.
    fn fragment(&mut self, at: usize, place: Place) -> Result<Read<Vec<Fragment>>> {
        if self.rest(at).is_empty() {
            return Ok(None);
        }
        if ["useLora", "withLora"].iter().any(|term| {
            let rest = self.rest(at).strip_prefix(term);
            rest.is_some_and(|rest| rest.trim_start().starts_with('('))
        }) {
            return Err(Error::option(
                &["prompt", "prompt_syntax"],
                "`useLora(…)` and `withLora(…)` in a prompt are not read: name the file beside the prompt",
            ));
        }
        let bracket = match self.quoted(at)? {
            Some(found) => Some(found),
            None => self.parenthesized(at)?,
        };
        let target = match &bracket {
            Some(found) => Some(found.clone()),
            None => self.word(at).map(|(word, end)| (vec![(word, 1.0)], end)),
        };
        if let Some((fragments, end)) = target {
            if self
                .literal(end, ".swap")
                .and_then(|end| self.literal(end, "("))
                .is_some()
            {
                return Err(Error::option(
                    &["prompt", "prompt_syntax"],
                    "`.swap(…)` in a prompt needs the model's attention to be changed on the way, which is not there",
                ));
            }
            if let Some((weight, end)) = self.attend(end).or_else(|| self.suffix(end, bracket.is_some())) {
                let weighted = fragments.into_iter().map(|(text, own)| (text, own * weight));
                return Ok(Some((weighted.collect(), end)));
            }
            if bracket.is_some() || place == Place::Inside {
                return Ok(Some((fragments, end)));
            }
        }
        if place == Place::Prompt {
            let end = self
                .rest(at)
                .find(char::is_whitespace)
                .unwrap_or(self.rest(at).len());
            return Ok(Some((vec![(self.rest(at)[..end].to_string(), 1.0)], at + end)));
        }
        let sign = self.rest(at).chars().next().filter(|c| [',', '.'].contains(c));
        Ok(sign.map(|sign| (vec![(sign.to_string(), 1.0)], at + 1)))
    }

    /// `"…"` with fragments between, and all of it.
    fn quoted(&mut self, at: usize) -> Result<Read<Vec<Fragment>>> {
        let Some(inner) = self.rest(at).strip_prefix('"') else {
            return Ok(None);
        };
        let Some(end) = closing_quote(inner) else {
            return Ok(None);
        };
        let unescaped = inner[..end].replace("\\\"", "\"");
        if unescaped.trim().is_empty() {
            return Ok(Some((vec![(String::new(), 1.0)], at + end + 2)));
        }
        let content = unescaped.replace('"', "\\\"");
        if self.depth >= DEEPEST {
            return Ok(None);
        }
        let mut within = Reader {
            text: &content,
            depth: self.depth + 1,
        };
        let (fragments, read) = within.fragments(0, Place::Inside)?;
        Ok((within.skip(read) == content.len()).then_some((fragments, at + end + 2)))
    }

    /// `(…)` with fragments between.
    fn parenthesized(&mut self, at: usize) -> Result<Read<Vec<Fragment>>> {
        if !self.rest(at).starts_with('(') || self.depth >= DEEPEST {
            return Ok(None);
        }
        self.depth += 1;
        let inner = self.fragments(at + 1, Place::Inside);
        self.depth -= 1;
        let (fragments, end) = inner?;
        Ok(self.literal(end, ")").map(|end| (fragments, end)))
    }

    /// A word without anything that means something; `-` and `+` may stand before a letter.
    fn word(&self, at: usize) -> Read<String> {
        let mut end = at;
        while let Some(c) = self.rest(end).chars().next() {
            let next = self.rest(end)[c.len_utf8()..].chars().next();
            end += match c {
                '\\' if next.is_some_and(|next| MEANING.contains(next)) => 2,
                '-' if next.is_some_and(|next| next.is_ascii_digit()) => 1,
                '-' | '+' if next.is_some_and(|next| !next.is_whitespace() && !MEANING.contains(next)) => 1,
                c if c.is_whitespace() || MEANING.contains(c) => break,
                c => c.len_utf8(),
            };
        }
        (end > at).then(|| (self.text[at..end].to_string(), end))
    }

    /// `.attend(1.2)` or `.attend(++)`.
    fn attend(&self, at: usize) -> Read<f64> {
        let at = self.literal(at, ".attend")?;
        let at = self.skip(self.literal(at, "(")?);
        let (weight, end) = self.signs(at).or_else(|| self.number(at))?;
        Some((weight, self.literal(end, ")")?))
    }

    /// `++`, `--`, or behind brackets a number, without white space before.
    fn suffix(&self, at: usize, is_bracket: bool) -> Read<f64> {
        self.signs(at).or_else(|| self.number(at).filter(|_| is_bracket))
    }

    fn signs(&self, at: usize) -> Read<f64> {
        let sign = self.rest(at).chars().next().filter(|c| ['+', '-'].contains(c))?;
        let count = self.rest(at).chars().take_while(|c| *c == sign).count();
        let base: f64 = if sign == '+' { 1.1 } else { 0.9 };
        Some((base.powi(i32::try_from(count).unwrap_or(i32::MAX)), at + count))
    }

    /// `1.2`, `.5`, `2`.
    fn number(&self, at: usize) -> Read<f64> {
        let rest = self.rest(at);
        let signed = rest.strip_prefix(['-', '+']).map_or(0, |_| 1);
        let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(signed);
        let mut end = signed + whole;
        if rest[end..].starts_with('.') && (whole > 0 || digits(end + 1) > 0) {
            end += 1 + digits(end + 1);
        } else if whole == 0 || rest.starts_with('+') {
            return None;
        }
        let number: f64 = rest[..end].parse().ok()?;
        Some((number, at + end)).filter(|(number, _)| number.is_finite())
    }

    /// `("one", "other").blend(…)` or `.and(…)`, which must be the whole text.
    fn joined(&mut self) -> Result<Option<Joined>> {
        let Some(mut at) = self.literal(0, "(") else {
            return Ok(None);
        };
        let mut targets = Vec::new();
        loop {
            let Some((fragments, end)) = self.target(self.skip(at))? else {
                return Ok(None);
            };
            targets.push(fused(fragments));
            match self.literal(end, ",") {
                Some(next) => at = next,
                None => {
                    at = end;
                    break;
                }
            }
        }
        let Some(end) = self.literal(at, ")") else {
            return Ok(None);
        };
        let operators = [
            (".blend", Join::Mean),
            (".and", Join::Follow),
            (".add", Join::Follow),
        ];
        let found = operators.into_iter().find_map(|(name, join)| {
            let end = self.literal(self.literal(end, name)?, "(")?;
            Some((name, join, end))
        });
        let Some((name, join, from)) = found else {
            return Ok(None);
        };
        let wrong = |what: String| {
            Error::option(
                &["prompt", "prompt_syntax"],
                format!("`{name}(…)` in the prompt {what}"),
            )
        };
        let length = self
            .rest(from)
            .find(')')
            .ok_or_else(|| wrong("is not closed".into()))?;
        if !self.rest(from)[length + 1..].trim().is_empty() {
            return Err(wrong("must stand at the end, and be all of the text".into()));
        }
        let mut options: Vec<&str> = self.rest(from)[..length].split(',').map(str::trim).collect();
        options.retain(|option| !option.is_empty());
        let plain = options.last() == Some(&"no_normalize") && join == Join::Mean;
        if plain {
            options.pop();
        }
        let numbers = options.iter().map(|option| super::super::weight(option));
        let weights: Vec<f64> = numbers
            .collect::<Option<_>>()
            .ok_or_else(|| wrong(format!("takes numbers, and `{}` are none", options.join(", "))))?;
        let weights = if weights.is_empty() {
            vec![1.0; targets.len()]
        } else {
            weights
        };
        if weights.len() != targets.len() {
            return Err(wrong(format!(
                "has {} weights for {} texts",
                weights.len(),
                targets.len()
            )));
        }
        if join == Join::Mean && !plain && weights.iter().sum::<f64>() == 0.0 {
            return Err(wrong(
                "has weights whose sum is 0: add no_normalize, or change one".into(),
            ));
        }
        Ok(Some(Joined {
            texts: weights.into_iter().zip(targets).collect(),
            join: if plain { Join::Sum } else { join },
        }))
    }

    /// One of the texts of a blend: quoted, in brackets, or a word; in quotes it may be anything.
    fn target(&mut self, at: usize) -> Result<Read<Vec<Fragment>>> {
        if let Some(found) = self.quoted(at)? {
            return Ok(Some(found));
        }
        if let Some(found) = self.parenthesized(at)? {
            return Ok(Some(found));
        }
        if let Some((word, end)) = self.word(at) {
            return Ok(Some((vec![(word, 1.0)], end)));
        }
        let Some(inner) = self.rest(at).strip_prefix('"') else {
            return Ok(None);
        };
        let Some(end) = closing_quote(inner) else {
            return Ok(None);
        };
        let content = inner[..end].to_string();
        let mut within = Reader {
            text: &content,
            depth: self.depth + 1,
        };
        let (fragments, _) = within.fragments(0, Place::Prompt)?;
        Ok(Some((fragments, at + end + 2)))
    }
}

/// The place of the quote that closes a text.
fn closing_quote(text: &str) -> Option<usize> {
    text.char_indices()
        .find(|(at, c)| *c == '"' && !text[..*at].ends_with('\\'))
        .map(|(at, _)| at)
}

fn unescaped(text: &str) -> String {
    text.replace("\\(", "(").replace("\\)", ")").replace("\\\"", "\"")
}

/// Neighbours of one weight as one text, with spaces between; escaped brackets and quotes as themselves.
fn fused(fragments: Vec<Fragment>) -> Vec<Span> {
    let mut spans: Vec<Fragment> = Vec::new();
    for (text, weight) in fragments {
        // The package does it when it reads a part, and again when it puts parts together.
        let text = unescaped(&unescaped(&text));
        match spans.last_mut() {
            Some((before, same)) if *same == weight => {
                before.push(' ');
                before.push_str(&text);
            }
            _ => spans.push((text, weight)),
        }
    }
    spans
        .into_iter()
        .map(|(text, weight)| Span::of(text, weight))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(String, f64)> {
        let joined = read(text).unwrap();
        assert_eq!(joined.texts.len(), 1, "{text}");
        spans(&joined.texts[0].1)
    }

    fn spans(spans: &[Span]) -> Vec<(String, f64)> {
        let part = |span: &Span| match span {
            Span::Text { text, weight } => (text.clone(), *weight),
            Span::Break => unreachable!(),
        };
        spans.iter().map(part).collect()
    }

    #[test]
    fn weights_are_the_packages() {
        // What version 2.5.1 of the package makes of these texts.
        let cases: [(&str, &[(&str, f64)]); 43] = [
            ("fire (flames)", &[("fire flames", 1.0)]),
            ("fire, flames , fire", &[("fire, flames , fire", 1.0)]),
            ("cat hot-dog eating", &[("cat hot-dog eating", 1.0)]),
            ("(flames)0.5", &[("flames", 0.5)]),
            ("flames.attend(0.5)", &[("flames", 0.5)]),
            ("\"flames\".attend(+)", &[("flames", 1.1)]),
            ("flames-", &[("flames", 0.9)]),
            (
                "(flowers)--- flames+++",
                &[("flowers", 0.9_f64.powi(3)), ("flames", 1.1_f64.powi(3))],
            ),
            (
                "(pretty flowers)+, the flames are too hot",
                &[("pretty flowers", 1.1), (", the flames are too hot", 1.0)],
            ),
            (
                "flowers fire++ flames",
                &[("flowers", 1.0), ("fire", 1.1_f64.powi(2)), ("flames", 1.0)],
            ),
            (
                "fire (flames (trees)1.5)2.0",
                &[("fire", 1.0), ("flames", 2.0), ("trees", 3.0)],
            ),
            (
                "a badly formed +test prompt",
                &[("a badly formed +test prompt", 1.0)],
            ),
            (
                "a badly (formed test prompt",
                &[("a badly (formed test prompt", 1.0)],
            ),
            (
                "a badly (formed +test )prompt",
                &[("a badly formed +test prompt", 1.0)],
            ),
            (
                "(((a badly (formed +test )prompt",
                &[("(((a badly formed +test prompt", 1.0)],
            ),
            (
                "(a (ba)dly (f)ormed +test prompt",
                &[("(a ba dly f ormed +test prompt", 1.0)],
            ),
            ("hamburger ((kaiser roll))", &[("hamburger kaiser roll", 1.0)]),
            (r"mountain \(man\)", &[("mountain (man)", 1.0)]),
            (r"mountain (\(man)\)", &[("mountain (man )", 1.0)]),
            (r"mountain (\(man\))+", &[("mountain", 1.0), ("(man)", 1.1)]),
            (
                r#"\"mountain\" (\(man\))1.1"#,
                &[("\"mountain\" ", 1.0), ("(man)", 1.1)],
            ),
            (
                "hairy (\"mountain, man\" with a beard+)+",
                &[
                    ("hairy", 1.0),
                    ("mountain , man with a", 1.1),
                    ("beard", 1.1 * 1.1),
                ],
            ),
            ("(flames)-0.5", &[("flames", 0.9), ("0.5", 1.0)]),
            ("(flames) 0.5", &[("flames 0.5", 1.0)]),
            ("(a, b)2", &[("a , b", 2.0)]),
            ("a+b", &[("a+b", 1.0)]),
            ("a++b", &[("a", 1.1_f64.powi(2)), ("b", 1.0)]),
            ("x=1", &[("x=1", 1.0)]),
            ("a moose ()", &[("a moose", 1.0)]),
            (
                "fire,flames++ c",
                &[("fire,", 1.0), ("flames", 1.1_f64.powi(2)), ("c", 1.0)],
            ),
            ("a (b=c)+", &[("a (b=c)+", 1.0)]),
            ("a \"unclosed", &[("a \"unclosed", 1.0)]),
            ("(a.b)+", &[("a . b", 1.1)]),
            ("a-b-", &[("a-b", 0.9)]),
            ("a -", &[("a -", 1.0)]),
            ("(a)1.2.3", &[("a", 1.2), (".3", 1.0)]),
            ("(a).5", &[("a", 0.5)]),
            ("word.attend(x)", &[("word.attend(x)", 1.0)]),
            ("a .attend(1.5)", &[("a", 1.5)]),
            ("a\\+b+", &[("a\\+b", 1.1)]),
            ("\"a\\\"b\"+", &[("a\"b", 1.1)]),
            ("(a))", &[("a )", 1.0)]),
            ("1.5 apples", &[("1.5 apples", 1.0)]),
        ];
        for (text, expected) in cases {
            let expected: Vec<(String, f64)> = expected
                .iter()
                .map(|(text, weight)| ((*text).trim_end().into(), *weight))
                .collect();
            assert_eq!(parts(text), expected, "{text}");
        }
    }

    #[test]
    fn blends_and_conjunctions_are_read() {
        let blend = read(r#"("fire", "fire flames (hot)++", "hi").blend(0.7, 0.3, 1.0)"#).unwrap();
        assert_eq!(blend.join, Join::Mean);
        let weights: Vec<f64> = blend.texts.iter().map(|(weight, _)| *weight).collect();
        assert_eq!(weights, [0.7, 0.3, 1.0]);
        assert_eq!(
            spans(&blend.texts[1].1),
            [("fire flames".into(), 1.0), ("hot".into(), 1.1_f64.powi(2))]
        );
        assert_eq!(read("(mountain, man).blend()").unwrap().texts.len(), 2);
        assert_eq!(read("((mountain), (tall man)).blend()").unwrap().texts.len(), 2);
        assert_eq!(
            read(r#"("a", "b").blend(1,-1,no_normalize)"#).unwrap().join,
            Join::Sum
        );
        let both = read(r#"("fire", "flames").and(2,1)"#).unwrap();
        assert_eq!((both.join, both.texts[0].0), (Join::Follow, 2.0));
        for (text, part) in [
            (r#"("a", "b").blend(0.7)"#, "1 weights for 2"),
            (r#"("a", "b").blend(0.7, x)"#, "takes numbers"),
            (r#"("a", "b").blend(1, -1)"#, "sum is 0"),
            (r#"("a", "b").and() more"#, "must stand at the end"),
            (r#"("a", "b").and("#, "not closed"),
            ("a cat.swap(dog)", ".swap"),
            ("a useLora(x, 0.5)", "useLora"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
        // In the middle of a text it is text, as there.
        assert_eq!(
            read(r#"a man on the ("moon", "earth").blend(0.5,0.5), walking"#)
                .unwrap()
                .texts
                .len(),
            1
        );
    }

    #[test]
    fn hostile_texts_end() {
        for text in [
            "(".repeat(3000),
            "((a)".repeat(2000),
            "\"(".repeat(1000),
            format!("{}a{}", "(".repeat(500), ")".repeat(500)),
        ] {
            assert!(read(&text).is_ok());
        }
    }
}
