//! What the program says: results on the standard output, everything else on the standard error. Names and texts of other people's files
//! are in it, so all of it goes through [`plain`].

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use crate::flags;

/// What is to be said once the terminal is free again; `None` while it is.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Whether another process speaks for this one.
static HUSHED: AtomicBool = AtomicBool::new(false);

/// From now on nothing is said but errors: another process says the same.
pub(crate) fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
}

/// Whether another process speaks for this one.
pub(crate) fn is_hushed() -> bool {
    HUSHED.load(Ordering::Relaxed)
}

/// Shows the library's warnings as lines of their own.
pub(crate) fn show_warnings() {
    tracing_subscriber::fmt()
        .with_writer(|| Sayer)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .init();
}

/// Prints nothing of a panic that a damaged file caused in its decoder: the library makes an error of it, which is
/// reported as any other.
pub(crate) fn keep_contained_panics_quiet() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !langevin::data::panics_are_contained() {
            usual(info);
        }
    }));
}

/// A line about something that was done otherwise than asked, or is worth knowing.
pub(crate) fn note(text: &str) {
    say(&format!("note: {text}"));
}

/// A text as one line that does nothing to a terminal: characters that steer it, end a line, or turn the direction of what follows are
/// written as JSON writes them.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            // All of them have four digits, and writing into a string does not fail.
            c if steers(c) => _ = write!(plain, "\\u{:04x}", u32::from(c)),
            c => plain.push(c),
        }
    }
    Cow::Owned(plain)
}

/// Whether a character is a control, a line's end, or one that isolates, embeds or overrides a direction.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A line on the standard error. If that is gone, so is whoever would have read it.
pub(crate) fn say(text: &str) {
    if !is_hushed() {
        tell(text);
    }
}

/// The same whoever speaks for this process.
fn tell(text: &str) {
    let text = plain(text);
    match lock().as_mut() {
        Some(lines) => lines.push(text.into_owned()),
        None => {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }
}

/// From now on, what is said is kept: something else is on the terminal.
pub(crate) fn hold() {
    lock().get_or_insert_default();
}

/// The last lines that were said since.
pub(crate) fn held(most: usize) -> Vec<String> {
    let held = lock();
    let lines = held.as_deref().unwrap_or_default();
    lines[lines.len().saturating_sub(most)..].to_vec()
}

/// The terminal is free again: says what was kept.
pub(crate) fn release() {
    let lines = lock().take();
    for line in lines.into_iter().flatten() {
        say(&line);
    }
}

/// A panic while a line was added left no half of it.
fn lock() -> MutexGuard<'static, Option<Vec<String>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the library's warnings, each of which comes whole, as lines that are said.
struct Sayer;

impl Write for Sayer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        say(String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line on the standard output.
///
/// # Errors
/// If it cannot be written, as when the reader of a pipe is gone.
pub(crate) fn print_line(text: &str) -> io::Result<()> {
    if is_hushed() {
        return Ok(());
    }
    writeln!(io::stdout(), "{}", plain(text))
}

/// Several lines, such as JSON, on the standard output.
///
/// # Errors
/// As [`print_line`].
pub(crate) fn print(text: &str) -> io::Result<()> {
    text.split('\n').try_for_each(print_line)
}

/// A value as JSON on the standard output, for programs.
///
/// # Errors
/// As [`print_line`].
pub(crate) fn print_json(value: &serde_json::Value) -> io::Result<()> {
    print(&format!("{value:#}"))
}

/// An error as its user should see it: one line, with its causes, and the library's options as flags.
pub(crate) fn report(error: &anyhow::Error) {
    let spelled = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<langevin::Error>() {
        Some(error) => error.spelled(flags::of_option),
        None => cause.to_string(),
    };
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().map(spelled) {
        // Some errors name their cause themselves.
        if !causes.last().is_some_and(|last| last.ends_with(&cause)) {
            causes.push(cause);
        }
    }
    tell(&format!("error: {}", causes.join(": ")));
}

/// Whether an error only says that the reader of our output has gone.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// A duration in words: `40 s`, `3 min 20 s`, `2 h 5 min`, `3 days 4 h`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..172_800 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} days {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// A whole number with its thousands apart: `113,673,219`.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A size in bytes in the unit that fits it: `44 KB`, `16.2 MB`.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} bytes"),
        1_000..1_000_000 => format!("{:.0} KB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.2} GB", count as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_written_out() {
        let name = "cat\u{1b}[2J\r\n\tdog\u{9b}1m\u{7f}\u{202e}gnp.\u{2066}x\u{2028}\0";
        assert_eq!(
            plain(name),
            "cat\\u001b[2J\\r\\n\\tdog\\u009b1m\\u007f\\u202egnp.\\u2066x\\u2028\\u0000"
        );
        assert_eq!(plain(&plain(name)), plain(name));
        // JSON that is printed stays the same JSON.
        let json = serde_json::json!({ "name": name }).to_string();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&plain(&json)).unwrap()["name"],
            name
        );
        for text in ["größe", "قطة", "猫", "👩‍🎨", "a\\b"] {
            assert!(matches!(plain(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn durations_are_rounded_to_what_matters() {
        assert_eq!(duration(39.6), "40 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(duration(7500.0), "2 h 5 min");
        assert_eq!(duration(3.0 * 86_400.0 + 4.5 * 3600.0), "3 days 4 h");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_707_009), "1,707,009");
    }
}
