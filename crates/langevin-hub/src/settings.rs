//! What the environment says about the Hub, by the names that Python's client gives its variables.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Error, Result};

/// Where the Hub is, where its cache is, and who asks.
#[derive(Clone)]
pub struct Settings {
    /// The Hub's address without a slash at its end. `HF_ENDPOINT`.
    pub endpoint: String,
    /// The folder of the cache. `HF_HUB_CACHE`, else `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// Who asks. `HF_TOKEN`, else what the file `token` in `HF_HOME` (or `HF_TOKEN_PATH`) holds.
    pub token: Option<String>,
    /// Where the token came from, for messages.
    pub token_source: TokenSource,
    /// Whether nothing may be asked of the Hub. `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Whether files of a snapshot may be links to the blobs. `HF_HUB_DISABLE_SYMLINKS` says no.
    pub symlinks: bool,
    /// How long is waited for a connection, and for the next bytes of an answer. `HF_HUB_DOWNLOAD_TIMEOUT`, in seconds.
    pub timeout: Duration,
    /// How long is waited before the first repetition of a request that failed; it doubles with each.
    pub retry_after: Duration,
    /// How often a request is repeated that brings nothing.
    pub retries: u32,
    /// How many files are transferred at a time.
    pub at_a_time: usize,
    /// A file of certificates (PEM) to trust in place of the usual ones. `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`.
    pub certificates: Option<PathBuf>,
}

/// Where a token came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// A program or a flag gave it.
    #[default]
    Given,
    /// A variable of the environment.
    Variable(&'static str),
    /// A file, which logging in leaves.
    File(PathBuf),
}

impl std::fmt::Display for TokenSource {
    /// What follows "the token": where it is to be changed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Given => f.write_str("that was given"),
            Self::Variable(name) => write!(f, "in {name}"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

impl std::fmt::Debug for Settings {
    /// Everything but the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

const ENDPOINT: &str = "https://huggingface.co";

impl Settings {
    /// What this process's environment says.
    ///
    /// # Errors
    /// [`Error::Setting`] if a variable makes no sense, or nothing says where the cache is.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var(name).ok(), std::env::home_dir().as_deref())
    }

    /// What these variables say, for a user with this home folder.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<Self> {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| given(name).map(|value| expand(&value, home));
        let is_on = |name: &str| given(name).is_some_and(|value| is_true(&value));
        let hf_home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.map(|home| home.join(".cache").join("huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|folder| folder.join("hub")));
        let Some(cache) = cache else {
            return Err(Error::Setting(
                "nothing says where the Hub's cache is: set HF_HOME to a folder".into(),
            ));
        };
        let token_file = path("HF_TOKEN_PATH").or_else(|| hf_home.map(|folder| folder.join("token")));
        let of_variable = |name| Some((given(name)?, TokenSource::Variable(name)));
        let of_file = || {
            let path = token_file?;
            Some((std::fs::read_to_string(&path).ok()?, TokenSource::File(path)))
        };
        let token = of_variable("HF_TOKEN")
            .or_else(|| of_variable("HUGGING_FACE_HUB_TOKEN"))
            .or_else(of_file)
            .map(|(token, source)| (token.trim().to_string(), source))
            .filter(|(token, _)| !token.is_empty());
        let (token, token_source) = token.unzip();
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_string();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::Setting(format!(
                "HF_ENDPOINT is `{endpoint}`; it should be an address that begins with https://"
            )));
        }
        let timeout = match given("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => 10,
            Some(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|&seconds| seconds > 0)
                .ok_or_else(|| {
                    Error::Setting(format!(
                        "HF_HUB_DOWNLOAD_TIMEOUT is `{text}`; it should be a whole number of seconds"
                    ))
                })?,
        };
        Ok(Self {
            endpoint,
            cache,
            token,
            token_source: token_source.unwrap_or_default(),
            offline: is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE"),
            symlinks: !is_on("HF_HUB_DISABLE_SYMLINKS"),
            timeout: Duration::from_secs(timeout),
            retry_after: Duration::from_secs(1),
            retries: 5,
            at_a_time: 8,
            certificates: path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE")),
        })
    }

    /// The settings for a Hub and a cache, with nothing from the environment.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: cache.into(),
            token: None,
            token_source: TokenSource::Given,
            offline: false,
            symlinks: true,
            timeout: Duration::from_secs(10),
            retry_after: Duration::from_secs(1),
            retries: 5,
            at_a_time: 8,
            certificates: None,
        }
    }
}

/// The words that Python's client takes for yes.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
}

/// A path in which `~` stands for the home folder.
fn expand(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_path_buf(),
        (Some(rest), Some(home)) if rest.starts_with('/') || rest.starts_with('\\') => home.join(&rest[1..]),
        _ => PathBuf::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        };
        Settings::from_variables(&variable, Some(Path::new("/home/me")))
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(
            cache(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]),
            Path::new("/home/me/hf/hub")
        );
        assert_eq!(
            cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]),
            Path::new("/old")
        );
        assert_eq!(
            cache(&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old")]),
            Path::new("/c")
        );
    }

    #[test]
    fn a_token_is_in_the_environment_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let in_file = settings(&[("HF_HOME", home)]).unwrap();
        assert_eq!(in_file.token.unwrap(), "hf_file");
        assert_eq!(
            in_file.token_source,
            TokenSource::File(folder.path().join("token"))
        );
        let both = settings(&[("HF_HOME", home), ("HF_TOKEN", " hf_x ")]).unwrap();
        assert_eq!(both.token.as_deref(), Some("hf_x"));
        assert_eq!(both.token_source.to_string(), "in HF_TOKEN");
        assert!(!format!("{both:?}").contains("hf_x"));
        assert_eq!(settings(&[("HF_TOKEN", "")]).unwrap().token, None);
    }

    #[test]
    fn words_for_yes_are_pythons() {
        for (word, on) in [
            ("1", true),
            ("true", true),
            ("Yes", true),
            ("0", false),
            ("no", false),
            ("", false),
        ] {
            assert_eq!(
                settings(&[("HF_HUB_OFFLINE", word)]).unwrap().offline,
                on,
                "{word}"
            );
        }
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
        assert!(!settings(&[("HF_HUB_DISABLE_SYMLINKS", "1")]).unwrap().symlinks);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        assert_eq!(
            settings(&[("HF_ENDPOINT", "https://h/")]).unwrap().endpoint,
            "https://h"
        );
        assert!(
            settings(&[("HF_ENDPOINT", "h")])
                .unwrap_err()
                .to_string()
                .contains("https://")
        );
        let error = settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).unwrap_err();
        assert!(error.to_string().contains("seconds"));
        let nowhere = Settings::from_variables(&|_| None, None).unwrap_err();
        assert!(nowhere.to_string().contains("HF_HOME"));
    }
}
