//! The command line of this process, as it may be written down where others read it.

/// What stands in place of a token.
const TOKEN: &str = "TOKEN";

/// The program and its arguments, without the value of `--hub-token`.
pub(super) fn arguments() -> Vec<String> {
    without_tokens(std::env::args())
}

fn without_tokens(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_token = false;
    args.map(|word| {
        let (flag, value) = match word.split_once('=') {
            Some((flag, _)) => (flag, true),
            None => (word.as_str(), false),
        };
        let names_token = !is_token && flag.replace('_', "-") == "--hub-token";
        let shown = match (is_token, names_token && value) {
            (true, _) => TOKEN.to_string(),
            (false, true) => format!("{flag}={TOKEN}"),
            _ => word.clone(),
        };
        is_token = names_token && !value;
        shown
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_nobodys_business() {
        let words = [
            "langevin",
            "train",
            "--hub_token",
            "hf_secret",
            "--hub-token=hf_secret",
            "--hub-token",
            "--seed=1",
        ];
        let shown = without_tokens(words.map(String::from).into_iter());
        assert_eq!(
            shown.join(" "),
            "langevin train --hub_token TOKEN --hub-token=TOKEN --hub-token TOKEN"
        );
    }
}
