//! How flags are written: both spellings of a name, and samplers by theirs.

use std::ffi::OsString;

use clap::{
    ArgMatches, Args, Command, FromArgMatches,
    builder::{PossibleValue, PossibleValuesParser},
};
use langevin::schedulers::SamplerName;

/// Writes every flag `--like_this` as `--like-this`; values stay as they are.
///
/// Python's scripts spell their flags with underscores, command lines are used to hyphens, and this program takes both.
pub(crate) fn to_kebab_case(args: Vec<OsString>) -> Vec<OsString> {
    let mut only_values = false;
    args.into_iter()
        .map(|arg| {
            only_values |= arg == "--";
            match arg.to_str() {
                Some(text) if text.starts_with("--") && !only_values => {
                    let (name, value) = match text.split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (text, None),
                    };
                    let name = name.replace('_', "-");
                    value
                        .map_or_else(|| name.clone(), |value| format!("{name}={value}"))
                        .into()
                }
                _ => arg,
            }
        })
        .collect()
}

/// The flag of an option: `--output-dir` of `output_dir`.
pub(crate) fn of_option(option: &str) -> String {
    format!("--{}", option.replace('_', "-"))
}

/// Options of the library as flags: what was typed over the library's defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options<T>(pub T, ArgMatches);

impl<T: Args> Options<T> {
    /// What was typed over other values than the defaults.
    pub(crate) fn over(&self, mut base: T) -> Result<T, clap::Error> {
        base.update_from_arg_matches(&self.1)?;
        Ok(base)
    }
}

impl<T: Args + Default> Args for Options<T> {
    fn augment_args(command: Command) -> Command {
        T::augment_args_for_update(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}

impl<T: Args + Default> FromArgMatches for Options<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Self::default();
        options.update_from_arg_matches(matches)?;
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.1 = matches.clone();
        self.0.update_from_arg_matches(matches)
    }
}

/// A parser for a sampler's name.
pub(crate) fn scheduler() -> PossibleValuesParser {
    PossibleValuesParser::new(
        SamplerName::ALL
            .iter()
            .map(|sampler| PossibleValue::new(sampler.name)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rewritten_and_values_are_not() {
        let args = [
            "langevin",
            "--train_batch_size=3",
            "--dataset_name",
            "my_pictures",
            "--output=a_b",
            "--",
            "--a_b",
        ];
        let rewritten = to_kebab_case(args.map(OsString::from).to_vec());
        assert_eq!(
            rewritten,
            [
                "langevin",
                "--train-batch-size=3",
                "--dataset-name",
                "my_pictures",
                "--output=a_b",
                "--",
                "--a_b"
            ]
        );
    }
}
