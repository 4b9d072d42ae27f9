//! `[from:to:when]`, `[to:when]`, `[from::when]` and `[one|other]`: `get_learned_conditioning_prompt_schedules`.
//!
//! The program's grammar: outside of what it knows, brackets and colons stand for themselves; a `|` there, or a backslash at the end, makes
//! the whole text one without schedules.

use std::collections::{BTreeSet, HashMap};

use crate::conditioning::prompt::DEEPEST;

/// What is drawn up to which step, from 1 to `steps`.
pub(super) fn schedule(text: &str, steps: usize) -> Vec<(usize, String)> {
    let steps = steps.max(1);
    let mut parser = Parser {
        text,
        steps,
        failed: HashMap::new(),
    };
    let Some(nodes) = parser.start() else {
        return vec![(steps, text.into())];
    };
    let mut ends = BTreeSet::from([steps]);
    collect(&nodes, steps, &mut ends);
    let at = |step| {
        let mut drawn = String::new();
        write(&nodes, step, &mut drawn);
        (step, drawn)
    };
    ends.into_iter().map(at).collect()
}

enum Node<'a> {
    Text(&'a str),
    /// Up to a step, and after it; what is there from the first step on has a step below 1.
    Scheduled(Vec<Node<'a>>, Vec<Node<'a>>, i64),
    Alternate(Vec<Vec<Node<'a>>>),
}

/// The steps after which the text is another.
fn collect(nodes: &[Node<'_>], steps: usize, ends: &mut BTreeSet<usize>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Scheduled(before, after, when) => {
                if *when >= 1 {
                    ends.insert(*when as usize);
                }
                collect(before, steps, ends);
                collect(after, steps, ends);
            }
            Node::Alternate(options) => {
                ends.extend(1..=steps);
                options.iter().for_each(|option| collect(option, steps, ends));
            }
        }
    }
}

/// The text at a step, from 1.
fn write(nodes: &[Node<'_>], step: usize, drawn: &mut String) {
    for node in nodes {
        match node {
            Node::Text(text) => drawn.push_str(text),
            Node::Scheduled(before, _, when) if step as i64 <= *when => write(before, step, drawn),
            Node::Scheduled(_, after, _) => write(after, step, drawn),
            Node::Alternate(options) => write(&options[(step - 1) % options.len()], step, drawn),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    steps: usize,
    /// Where a bracket begins nothing that the grammar knows, and at which depths at least: asked once.
    failed: HashMap<usize, usize>,
}

impl<'a> Parser<'a> {
    /// The whole text; `None` where the grammar does not know it.
    fn start(&mut self) -> Option<Vec<Node<'a>>> {
        let (mut nodes, mut at) = (Vec::new(), 0);
        while at < self.text.len() {
            let (more, end) = self.prompt(at, 0);
            nodes.extend(more);
            at = end;
            match self.byte(at) {
                None => {}
                // A bracket or colon that belongs to nothing.
                Some(b'[' | b']' | b'(' | b')' | b':') => {
                    nodes.push(Node::Text(&self.text[at..=at]));
                    at += 1;
                }
                Some(_) => return None,
            }
        }
        Some(nodes)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// As much as is plain text or a whole bracket, and where it ends.
    fn prompt(&mut self, from: usize, depth: usize) -> (Vec<Node<'a>>, usize) {
        let (mut nodes, mut at) = (Vec::new(), from);
        loop {
            let end = self.plain(at);
            if end > at {
                nodes.push(Node::Text(&self.text[at..end]));
                at = end;
            }
            match self.bracket(at, depth) {
                Some((more, end)) => {
                    nodes.extend(more);
                    at = end;
                }
                None => return (nodes, at),
            }
        }
    }

    /// The end of the text without meaning from `at` on: a backslash takes what follows it along.
    fn plain(&self, mut at: usize) -> usize {
        while let Some(c) = self.text[at..].chars().next() {
            match c {
                '[' | ']' | '(' | ')' | ':' | '|' => break,
                '\\' => match self.text[at + 1..].chars().next().filter(|c| *c != '\n') {
                    Some(escaped) => at += 1 + escaped.len_utf8(),
                    None => break,
                },
                c => at += c.len_utf8(),
            }
        }
        at
    }

    /// A whole bracket at `at`, if one begins there.
    fn bracket(&mut self, at: usize, depth: usize) -> Option<(Vec<Node<'a>>, usize)> {
        let open = self.byte(at).filter(|open| matches!(open, b'[' | b'('))?;
        // At a smaller depth there may be more room below.
        if depth >= DEEPEST || self.failed.get(&at).is_some_and(|failed| depth >= *failed) {
            return None;
        }
        let found = match open {
            b'(' => self.round(at, depth),
            _ => self.square(at, depth),
        };
        if found.is_none() {
            self.failed.insert(at, depth);
        }
        found
    }

    /// `(…)` or `(…:…)`, which mean nothing here but for what is in them.
    fn round(&mut self, at: usize, depth: usize) -> Option<(Vec<Node<'a>>, usize)> {
        let mut nodes = vec![Node::Text(&self.text[at..=at])];
        let (inner, mut end) = self.prompt(at + 1, depth + 1);
        nodes.extend(inner);
        if self.byte(end) == Some(b':') {
            nodes.push(Node::Text(&self.text[end..=end]));
            let (inner, after) = self.prompt(end + 1, depth + 1);
            nodes.extend(inner);
            end = after;
        }
        (self.byte(end) == Some(b')')).then(|| {
            nodes.push(Node::Text(&self.text[end..=end]));
            (nodes, end + 1)
        })
    }

    /// `[…:…:when]`, `[…:when]`, `[…|…]`, or `[…]`, which means nothing here.
    fn square(&mut self, at: usize, depth: usize) -> Option<(Vec<Node<'a>>, usize)> {
        let (first, end) = self.prompt(at + 1, depth + 1);
        match self.byte(end) {
            Some(b']') => {
                let mut nodes = vec![Node::Text(&self.text[at..=at])];
                nodes.extend(first);
                nodes.push(Node::Text(&self.text[end..=end]));
                Some((nodes, end + 1))
            }
            Some(b'|') => {
                let (mut options, mut end) = (vec![first], end);
                while self.byte(end) == Some(b'|') {
                    let (option, after) = self.prompt(end + 1, depth + 1);
                    options.push(option);
                    end = after;
                }
                (self.byte(end) == Some(b']')).then(|| (vec![Node::Alternate(options)], end + 1))
            }
            Some(b':') => {
                if let Some((when, after)) = self.when(end + 1) {
                    return Some((vec![Node::Scheduled(Vec::new(), first, when)], after));
                }
                let (second, end) = self.prompt(end + 1, depth + 1);
                let (when, after) = self.when(end + 1).filter(|_| self.byte(end) == Some(b':'))?;
                Some((vec![Node::Scheduled(first, second, when)], after))
            }
            _ => None,
        }
    }

    /// `when]`: a step, or with a decimal point a part of all steps; and where the bracket ends.
    fn when(&self, at: usize) -> Option<(i64, usize)> {
        let rest = self.text.get(at..)?;
        let end = rest.find(']')?;
        let number = rest[..end].trim();
        let is_number = number.contains(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
        let value: f64 = number.parse().ok().filter(|_| is_number)?;
        let value = if number.contains('.') {
            value * self.steps as f64
        } else {
            value
        };
        // A cast saturates.
        Some(((value as i64).min(self.steps as i64), at + end + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten(text: &str) -> Vec<(usize, String)> {
        schedule(text, 10)
    }

    #[test]
    fn the_programs_own_examples_hold() {
        // From the docstring of get_learned_conditioning_prompt_schedules, with 10 steps.
        let cases: [(&str, &[(usize, &str)]); 12] = [
            ("test", &[(10, "test")]),
            ("a [b:3]", &[(3, "a "), (10, "a b")]),
            ("a [b: 3]", &[(3, "a "), (10, "a b")]),
            ("a [[[b]]:2]", &[(2, "a "), (10, "a [[b]]")]),
            ("[(a:2):3]", &[(3, ""), (10, "(a:2)")]),
            ("a [b : c : 1] d", &[(1, "a b  d"), (10, "a  c  d")]),
            ("a[b:[c:d:2]:1]e", &[(1, "abe"), (2, "ace"), (10, "ade")]),
            ("a [unbalanced", &[(10, "a [unbalanced")]),
            ("a [b:.5] c", &[(5, "a  c"), (10, "a b c")]),
            ("((a][:b:c [d:3]", &[(3, "((a][:b:c "), (10, "((a][:b:c d")]),
            ("a [b:1.5] c", &[(10, "a  c")]),
            ("[a:b:0.5] [c::5]", &[(5, "a c"), (10, "b ")]),
        ];
        for (text, stages) in cases {
            let stages: Vec<(usize, String)> = stages
                .iter()
                .map(|(step, text)| (*step, (*text).into()))
                .collect();
            assert_eq!(ten(text), stages, "{text}");
        }
        let turns = |texts: &[&str]| -> Vec<(usize, String)> {
            (1..=10)
                .map(|step| (step, texts[(step - 1) % texts.len()].to_string()))
                .collect()
        };
        assert_eq!(ten("[a|(b:1.1)]"), turns(&["a", "(b:1.1)"]));
        assert_eq!(ten("[fe|]male"), turns(&["female", "male"]));
        assert_eq!(ten("[fe|||]male"), turns(&["female", "male", "male", "male"]));
        // The comment at the head of the module, with 100 steps.
        let text = "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][: in background:0.25] [shoddy:masterful:0.5]";
        let stages = schedule(text, 100);
        let expected = [
            (
                25,
                "fantasy landscape with a mountain and an oak in foreground shoddy",
            ),
            (
                50,
                "fantasy landscape with a lake and an oak in foreground in background shoddy",
            ),
            (
                60,
                "fantasy landscape with a lake and an oak in foreground in background masterful",
            ),
            (
                75,
                "fantasy landscape with a lake and an oak in background masterful",
            ),
            (
                100,
                "fantasy landscape with a lake and a christmas tree in background masterful",
            ),
        ];
        assert_eq!(stages, expected.map(|(step, text)| (step, text.to_string())));
    }

    #[test]
    fn odd_texts_mean_what_they_mean_there() {
        // What the program's grammar, run by lark, makes of them.
        let cases: [(&str, &[(usize, &str)]); 14] = [
            ("[a|b:3]", &[(10, "[a|b:3]")]),
            ("[a:b:c:3]", &[(10, "[a:b:c:3]")]),
            ("(a:b:3)", &[(10, "(a:b:3)")]),
            ("[[a:b:3]", &[(3, "[a"), (10, "[b")]),
            ("a [b:1e1] c", &[(10, "a  c")]),
            ("a [b:-1] c", &[(10, "a b c")]),
            ("a|b [c:2]", &[(10, "a|b [c:2]")]),
            (r"\[a:b:3]", &[(10, r"\[a:b:3]")]),
            (r"[a\:b:3]", &[(3, ""), (10, r"a\:b")]),
            ("[:b:3]", &[(3, ""), (10, "b")]),
            ("[::3]", &[(3, ""), (10, "")]),
            ("[b:]", &[(10, "[b:]")]),
            ("[a:3:4]", &[(4, "a"), (10, "3")]),
            ("a\\", &[(10, "a\\")]),
        ];
        for (text, stages) in cases {
            let stages: Vec<(usize, String)> = stages
                .iter()
                .map(|(step, text)| (*step, (*text).into()))
                .collect();
            assert_eq!(ten(text), stages, "{text}");
        }
    }

    #[test]
    fn hostile_texts_end() {
        for text in [
            "[".repeat(50_000),
            "[a:".repeat(20_000),
            "([".repeat(20_000),
            "[a|".repeat(20_000),
        ] {
            assert_eq!(schedule(&text, 50).len(), 1);
        }
        let deep = format!("{}a{}", "[".repeat(1000), ":3]".repeat(1000));
        assert!(!schedule(&deep, 50).is_empty());
        assert!(!ten("[a:1e400]").is_empty());
    }
}
