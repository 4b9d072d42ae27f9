//! What makes an option of a run of a field.

/// Defines the struct of a run's options. A field is all that there is to say of one: its doc comment, which is the flag's help too,
/// the heading and whatever else clap is to know of the flag, whether a run that is resumed may change it, its type, and its default.
///
/// The feature `clap` makes flags of them: `augment_args_for_update` adds them to a command, and `update_from_arg_matches` puts what
/// was typed over whatever defaults there are.
macro_rules! options {
    (
        $(#[doc = $about:tt])+
        pub struct $name:ident {
            $(
                $(#[doc = $help:tt])+
                #[flag($heading:literal $(, $($flag:tt)+)?)]
                $(#[resume($may_change:ident)])?
                pub $field:ident: $type:ty = $default:expr,
            )+
        }
    ) => {
        $(#[doc = $about])+
        // Brackets hold defaults.
        #[allow(rustdoc::broken_intra_doc_links)]
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "clap", derive(clap::Args))]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[doc = $help])+
                #[cfg_attr(feature = "clap", arg(long, help_heading = $heading $(, $($flag)+)?))]
                pub $field: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            /// The options that a run which is resumed may change.
            pub(super) const MAY_CHANGE: &[&str] = &[
                $($($crate::training::options::$may_change!($field),)?)+
            ];
        }
    };
}

/// The name of an option that a run which is resumed may change.
macro_rules! may_change {
    ($field:ident) => {
        stringify!($field)
    };
}

pub(super) use {may_change, options};

/// How options are written on a command line.
#[cfg(feature = "clap")]
pub(super) trait Flag {
    /// A flag that is on where it stands alone, and takes `=true` and `=false`.
    fn switch(self) -> Self;
}

#[cfg(feature = "clap")]
impl Flag for clap::Arg {
    fn switch(self) -> Self {
        self.action(clap::ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
    }
}
