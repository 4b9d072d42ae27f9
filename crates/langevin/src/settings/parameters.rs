//! The text `parameters` that AUTOMATIC1111's web UI writes into pictures, and many programs after it.
//!
//! The prompt, then `Negative prompt: …`, each of as many lines as it has, and a last line of `Name: value` pairs (`modules/processing.py`,
//! `create_infotext`; `modules/infotext_utils.py`, `parse_generation_parameters`).

use std::fmt::Write;

const NEGATIVE: &str = "Negative prompt:";
/// The fewest pairs by which the last line is told from a prompt's.
const FEWEST_PAIRS: usize = 3;

/// What such a text says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The prompt.
    pub prompt: String,
    /// What guidance leads away from.
    pub negative_prompt: String,
    /// Names and values, in order.
    pub pairs: Vec<(String, String)>,
}

impl Parameters {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pair = self.pairs.iter().find(|(known, _)| known == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// Reads a text. Whatever it is, it says something: a text without pairs is a prompt.
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        let all: Vec<&str> = text.split('\n').map(str::trim).collect();
        let place = place_of_pairs(&all);
        let (lines, pairs) = match place {
            None => (&all[..], Vec::new()),
            Some(place) => {
                let mut pairs = pairs_of(all[place]);
                // Extensions put lines of their own behind it.
                let more = all[place + 1..].iter().filter_map(|line| line.split_once(": "));
                pairs.extend(more.map(|(name, value)| (name.to_string(), value.to_string())));
                (&all[..place], pairs)
            }
        };
        let mut found = Self {
            pairs,
            ..Self::default()
        };
        let mut is_negative = false;
        let end = lines
            .iter()
            .rposition(|line| !line.is_empty())
            .map_or(0, |last| last + 1);
        for &line in &lines[..end] {
            let line = match line.strip_prefix(NEGATIVE) {
                Some(rest) => {
                    is_negative = true;
                    rest.trim()
                }
                None => line,
            };
            let side = if is_negative {
                &mut found.negative_prompt
            } else {
                &mut found.prompt
            };
            if !side.is_empty() {
                side.push('\n');
            }
            side.push_str(line);
        }
        found
    }
}

/// As the program writes it.
impl std::fmt::Display for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.prompt)?;
        if !self.negative_prompt.is_empty() {
            write!(f, "\n{NEGATIVE} {}", self.negative_prompt)?;
        }
        f.write_char('\n')?;
        for (place, (name, value)) in self.pairs.iter().enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{name}: {}", quoted(value))?;
        }
        Ok(())
    }
}

/// A value with quotes around where it would end the pair.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n', '"']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

/// Which of the lines has the pairs: the last one, or where other lines follow, the last that begins as it does.
fn place_of_pairs(lines: &[&str]) -> Option<usize> {
    let has_pairs = |place: &usize| pairs_of(lines[*place]).len() >= FEWEST_PAIRS;
    let last = lines.len().checked_sub(1).filter(has_pairs);
    last.or_else(|| {
        let begins = |place: &usize| lines[*place].starts_with("Steps: ");
        (0..lines.len()).rev().filter(begins).find(has_pairs)
    })
}

/// The pairs of a line, or those that stand between bars, as SD.Next wrote them once.
fn pairs_of(line: &str) -> Vec<(String, String)> {
    let found = pairs(line);
    if found.len() >= FEWEST_PAIRS || !line.contains(" | ") {
        return found;
    }
    let between = line.split(" | ").filter_map(|one| one.split_once(": "));
    between
        .map(|(name, value)| (name.trim().into(), value.trim().into()))
        .collect()
}

/// The pairs of a line: `\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)`, one after another.
fn pairs(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        match pair(rest) {
            Some((name, value, after)) => {
                pairs.push((name, value));
                rest = after;
            }
            // What is no pair is passed over, up to where one may begin.
            None => rest = rest.split_once(',').map_or("", |(_, rest)| rest),
        }
    }
    pairs
}

fn pair(line: &str) -> Option<(String, String, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let line = line.trim_start();
    // No further than a name goes: a line may be long, and hold no colon.
    let (name, rest) = line.split_at(line.find(|c| !is_word(c) && !" -/".contains(c))?);
    let rest = rest.strip_prefix(':')?;
    if !name.starts_with(is_word) || name.chars().count() < 2 {
        return None;
    }
    let rest = rest.trim_start();
    if let Some((value, after)) = quoted_value(rest) {
        return Some((name.trim_end().into(), value, after));
    }
    let (value, after) = rest.split_once(',').unwrap_or((rest, ""));
    Some((name.trim_end().into(), value.trim().into(), after))
}

/// A value in quotes that a comma or the end follows.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.find(|c: char| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    let after = inner[end + 1..].trim_start();
    let after = if after.is_empty() {
        after
    } else {
        after.strip_prefix(',')?
    };
    let value: String = serde_json::from_str(&text[..end + 2]).ok()?;
    Some((value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, String, Vec<(String, String)>) {
        let found = Parameters::read(text);
        (found.prompt, found.negative_prompt, found.pairs)
    }

    /// Not in a time that grows with the square of their length: it would not end here.
    #[test]
    fn long_texts_of_anything_are_read_through() {
        for text in ["a,", "a b-c,", "<lora:x>", "<lora:x,", "Steps: 1\n"] {
            let long = text.repeat(1 << 20);
            assert_eq!(read(&long).2.len(), 0, "{text}");
            let _ = crate::options::take_loras(&long);
        }
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn a_usual_text_is_read() {
        let text = "a girl with an artist's beret, determined, blue eyes, desert scene\nNegative prompt: ugly, fat, obese, chubby, (((deformed))), [blurry], bad anatomy\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b";
        let (prompt, negative, pairs) = read(text);
        assert!(prompt.starts_with("a girl") && negative.ends_with("bad anatomy"));
        assert_eq!(
            pairs,
            owned(&[
                ("Steps", "20"),
                ("Sampler", "Euler a"),
                ("CFG scale", "7"),
                ("Seed", "965400086"),
                ("Size", "512x512"),
                ("Model hash", "45dee52b"),
            ])
        );
    }

    #[test]
    fn odd_texts_are_read() {
        // Several lines on both sides; a prompt whose line looks like a pair or two.
        let (prompt, negative, pairs) =
            read("a\n\nb: c, d: e\nNegative prompt: f\ng\nSteps: 1, Seed: 2, Size: 8x8");
        assert_eq!(
            (prompt.as_str(), negative.as_str(), pairs.len()),
            ("a\n\nb: c, d: e", "f\ng", 3)
        );
        // No line of pairs: two are too few to be one.
        assert_eq!(read("a cat\nNegative prompt: x, y: z, b: c").1, "x, y: z, b: c");
        assert_eq!(read("just a prompt").0, "just a prompt");
        assert_eq!(read(""), (String::new(), String::new(), Vec::new()));
        // No negative prompt, or nothing but that.
        assert_eq!(read("a\nSteps: 1, Seed: 2, Size: 8x8").1, "");
        assert_eq!(read("Negative prompt: b\nSteps: 1, Seed: 2, Size: 8x8").1, "b");
        assert_eq!(read("Steps: 1, Seed: 2, Size: 8x8").2.len(), 3);
        // Commas, colons, quotes and newlines in values are in quotes, as JSON.
        let text = r#"a
Steps: 1, Lora hashes: "one: 1a2b, two: 3c4d", Note: "say \"hi\",\nthen go", Seed: 5, Size: 8x8"#;
        let pairs = read(text).2;
        assert_eq!(pairs[1], ("Lora hashes".into(), "one: 1a2b, two: 3c4d".into()));
        assert_eq!(pairs[2].1, "say \"hi\",\nthen go");
        assert_eq!(pairs[3].1, "5");
        // A quote that does not close is a character.
        assert_eq!(read("a\nSteps: 1, Note: \"x, Seed: 5, Size: 8x8").2[1].1, "\"x");
        // Windows' line ends.
        assert_eq!(
            read("a\r\nNegative prompt: b\r\nSteps: 1, Seed: 2, Size: 8x8").1,
            "b"
        );
        // What Civitai adds.
        let text =
            "a\nSteps: 1, Seed: 2, Size: 8x8, Hashes: {\"model\":\"ab\",\"lora:x\":\"cd\"}, Version: v1";
        assert_eq!(Parameters::read(text).get("Version"), Some("v1"));
        assert_eq!(Parameters::read(text).get("Seed"), Some("2"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = Parameters {
            prompt: "a (cat:1.2),\n\"quoted\", with: colons".into(),
            negative_prompt: "b, c\nd".into(),
            pairs: owned(&[
                ("Steps", "20"),
                ("Sampler", "DPM++ 2M"),
                ("Model", "a, b: \"c\"\nd"),
                ("Seed", "7"),
            ]),
        };
        assert_eq!(Parameters::read(&written.to_string()), written);
    }

    #[test]
    fn texts_of_extensions_and_forks_are_read() {
        let pairs = [("Steps", "4"), ("Sampler", "Euler a"), ("Seed", "7")];
        // Lines behind the pairs, from templates of prompts.
        let text = "a cat\nNegative prompt: blur\nSteps: 4, Sampler: Euler a, Seed: 7\nTemplate: {a|b} cat\nNegative Template: blur";
        let more = [("Template", "{a|b} cat"), ("Negative Template", "blur")];
        let all: Vec<(&str, &str)> = pairs.into_iter().chain(more).collect();
        assert_eq!(read(text), ("a cat".into(), "blur".into(), owned(&all)));
        // Blank lines first, and bars in the place of commas.
        let text = "\n\na (b), c\nNegative prompt: d\nSteps: 4 | Sampler: Euler a | Seed: 7";
        assert_eq!(read(text), ("a (b), c".into(), "d".into(), owned(&pairs)));
        // A prompt may speak of steps.
        let text = "Steps: to heaven\nSteps: 4, Sampler: Euler a, Seed: 7";
        assert_eq!(
            read(text),
            ("Steps: to heaven".into(), String::new(), owned(&pairs))
        );
        assert_eq!(read("Steps: up\nand | down").0, "Steps: up\nand | down");
    }
}
