//! Choices that have names: enums that files and command lines write as words.

use crate::{Error, Result};

/// A closed set of choices, each with the one name that it has in files and on the command line.
pub trait Named: Copy + Sized + 'static {
    /// What is being chosen, for messages: `a learning-rate schedule`.
    const KIND: &'static str;
    /// Every choice, in the order in which help lists them.
    const ALL: &'static [Self];

    /// The choice's name.
    fn name(self) -> &'static str;

    /// The choice with this name.
    ///
    /// # Errors
    /// If there is none, with the names that there are.
    fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|choice| choice.name() == name)
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|choice| choice.name()).collect();
                Error::Config(format!(
                    "`{name}` is not {}; there are {}",
                    Self::KIND,
                    names.join(", ")
                ))
            })
    }
}

/// Defines an enum whose variants have names: [`Named`], `Display`, `FromStr`, serde and, with
/// the features `clap` and `schema`, flags and JSON Schema all use them.
macro_rules! named_enum {
    (
        $(#[$meta:meta])*
        $vis:vis enum $type:ident: $kind:literal {
            $( $(#[$variant_meta:meta])* $variant:ident = $name:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        $vis enum $type {
            $( $(#[$variant_meta])* #[serde(rename = $name)] $variant, )+
        }

        impl $crate::named::Named for $type {
            const KIND: &'static str = $kind;
            const ALL: &'static [Self] = &[$( Self::$variant, )+];

            fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $name, )+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad($crate::named::Named::name(*self))
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::Error;

            fn from_str(name: &str) -> $crate::Result<Self> {
                $crate::named::Named::from_name(name)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$( $name, )+] })
            }
        }

        #[cfg(feature = "clap")]
        impl clap::builder::ValueParserFactory for $type {
            type Parser = clap::builder::ValueParser;

            fn value_parser() -> Self::Parser {
                $crate::named::value_parser::<Self>()
            }
        }
    };
}

pub(crate) use named_enum;

/// Reads one of the choices from a command line, and lists them in its help.
#[cfg(feature = "clap")]
pub(crate) fn value_parser<T: Named + Send + Sync>() -> clap::builder::ValueParser {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(T::ALL.iter().map(|choice| choice.name()))
        .try_map(|name| T::from_name(&name))
        .into()
}

#[cfg(test)]
mod tests {
    use super::Named;

    named_enum! {
        /// A fruit.
        pub(super) enum Fruit: "a fruit" {
            /// Round.
            Apple = "apple",
            /// Long.
            BananaSplit = "banana-split",
        }
    }

    #[test]
    fn a_name_reads_back_as_its_choice_everywhere() {
        for &fruit in Fruit::ALL {
            assert_eq!(fruit.name().parse::<Fruit>().unwrap(), fruit);
            assert_eq!(serde_json::to_string(&fruit).unwrap(), format!("\"{fruit}\""));
            assert_eq!(
                serde_json::from_str::<Fruit>(&format!("\"{fruit}\"")).unwrap(),
                fruit
            );
        }
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let message = "pear".parse::<Fruit>().unwrap_err().to_string();
        assert_eq!(message, "`pear` is not a fruit; there are apple, banana-split");
    }
}
