//! What a column of attributes says of a picture.

use serde_json::Value;

/// Whether a picture has an attribute, by a number: 1 is yes; 0, and -1 as CelebA has it, are no. `None` is neither.
pub(super) fn of_number(number: f64) -> Option<bool> {
    match number {
        1.0 => Some(true),
        0.0 | -1.0 => Some(false),
        _ => None,
    }
}

/// The same by a text, such as a cell of a CSV file.
pub(super) fn of_text(text: &str) -> Option<bool> {
    match text.trim() {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        number => of_number(number.parse().ok()?),
    }
}

/// The same by a value of JSON.
pub(super) fn of_json(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(has) => Some(*has),
        Value::Number(number) => of_number(number.as_f64()?),
        Value::String(text) => of_text(text),
        _ => None,
    }
}

/// What is wrong with a row, where a column says neither yes nor no, as the end of a sentence.
pub(super) fn wrong(column: &str, value: Option<String>) -> String {
    let why = match value {
        None => format!("has no `{column}`"),
        Some(value) => format!("has the `{column}` {value}"),
    };
    format!("{why}: an attribute is 1 or true where the picture has it, and 0, -1 or false where it has not")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yes_and_no_are_written_in_many_ways() {
        for yes in [
            json!(1),
            json!(1.0),
            json!(true),
            json!("1"),
            json!("True"),
            json!(" true "),
        ] {
            assert_eq!(of_json(&yes), Some(true), "{yes}");
        }
        for no in [
            json!(0),
            json!(-1),
            json!(0.0),
            json!(false),
            json!("0"),
            json!("-1"),
            json!("FALSE"),
        ] {
            assert_eq!(of_json(&no), Some(false), "{no}");
        }
        for neither in [
            json!(2),
            json!(0.5),
            json!("yes, mostly"),
            json!(""),
            json!("nan"),
            json!([1]),
            json!(null),
        ] {
            assert_eq!(of_json(&neither), None, "{neither}");
        }
    }
}
