//! Why a request brought nothing, and whether the same request may bring something a little later.

use std::{
    io::{self, ErrorKind, Read},
    time::Duration,
};

use ureq::{Body, http::Response};

use crate::{address, headers::text, limit::asked_to_wait};

/// What is shown of a message that the Hub sends along.
const MAX_MESSAGE: usize = 300;

/// Why a request brought nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody can be asked: there is no network, or no such host.
    Unreachable(String),
    /// No answer came, or not all of it.
    Network(String),
    /// It cannot go well as things are set up, however often it is tried: a certificate is refused, an address is none. The text says
    /// what to do.
    Setup(String),
    /// The Hub said no.
    Refused(Refusal),
}

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The Hub's word for what is wrong, `X-Error-Code`.
    pub code: Option<String>,
    /// The Hub's sentence, from `X-Error-Message` or the answer's body.
    pub message: String,
    /// What was asked.
    pub url: String,
    /// Whether a token was sent along.
    pub had_token: bool,
    /// How long the Hub wants to be left alone.
    pub wait: Option<Duration>,
}

impl Failure {
    /// Whether the same request may succeed a little later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Network(_) => true,
            Self::Setup(_) => false,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 500 | 502 | 503 | 504),
        }
    }

    /// Whether the Hub did not get to say anything about what was asked, so that the cache's word is as good as any.
    pub(crate) fn says_nothing(&self) -> bool {
        self.is_passing() || matches!(self, Self::Setup(_))
    }

    /// An answer that is no Hub's.
    pub(crate) fn unexpected(url: &str, what: &str) -> Self {
        Self::Refused(Refusal {
            status: 200,
            code: None,
            message: format!("the answer is not what a Hub says: {what}"),
            url: url.to_string(),
            had_token: false,
            wait: None,
        })
    }

    /// What a request without an answer means.
    pub(crate) fn of(url: &str, error: &ureq::Error) -> Self {
        let host = address::origin(url).unwrap_or(url);
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                Self::Unreachable(format!("{host} does not answer"))
            }
            ureq::Error::Timeout(_) => Self::Network(format!("{host} does not answer")),
            ureq::Error::HostNotFound => Self::Unreachable(format!("the name of {host} is not known")),
            ureq::Error::ConnectionFailed => Self::Unreachable(format!("no connection to {host}")),
            ureq::Error::Io(e) if is_unreachable(e) => Self::Unreachable(format!("{host}: {e}")),
            // The handshake's errors come as those of the stream.
            ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => Self::Setup(insecure(host, e)),
            ureq::Error::Rustls(e) => Self::Setup(insecure(host, e)),
            ureq::Error::Tls(e) => Self::Setup(insecure(host, e)),
            ureq::Error::InvalidProxyUrl => Self::Setup(
                "the proxy's address is none: HTTPS_PROXY or ALL_PROXY should be like http://host:port"
                    .into(),
            ),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Self::Setup(format!(
                "`{}` is no address that can be asked ({error}): check HF_ENDPOINT if it is set",
                address::without_query(url)
            )),
            error => Self::Network(format!("{host}: {error}")),
        }
    }
}

fn insecure(host: &str, error: &dyn std::fmt::Display) -> String {
    let error = error.to_string();
    if error.contains("certificate") {
        format!(
            "the certificate of {host} is not trusted ({error}): if a proxy or a firewall looks into connections here, let \
             SSL_CERT_FILE name a file (PEM) of the certificates to trust; otherwise check this machine's clock"
        )
    } else {
        format!(
            "no secure connection to {host} comes about ({error}): check that the address should begin with https://, and the \
             proxy if there is one"
        )
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    use ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable};
    // WSAHOST_NOT_FOUND, WSATRY_AGAIN, WSANO_RECOVERY and WSANO_DATA.
    const WINDOWS: [i32; 4] = [11001, 11002, 11003, 11004];
    matches!(
        error.kind(),
        AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkDown | NetworkUnreachable
    )
        // The standard library has no kind for a name that is not resolved.
        || error.to_string().contains("failed to lookup address")
        || cfg!(windows) && error.raw_os_error().is_some_and(|code| WINDOWS.contains(&code))
}

impl Refusal {
    /// What an answer says that is no success.
    pub(crate) fn of(response: Response<Body>, url: &str, had_token: bool) -> Self {
        let headers = response.headers();
        let status = response.status().as_u16();
        let wait = asked_to_wait(headers);
        let code = text(headers, "x-error-code").map(String::from);
        let message = text(headers, "x-error-message").map(String::from);
        let message = message.unwrap_or_else(|| {
            let mut body = String::new();
            let mut reader = response.into_body().into_reader().take(1 << 16);
            // A body that does not come whole says what it says.
            let _ = reader.read_to_string(&mut body);
            let said = serde_json::from_str::<serde_json::Value>(&body).ok();
            let said = said.and_then(|value| Some(value.get("error")?.as_str()?.to_string()));
            said.unwrap_or_default()
        });
        let shown = |c: &char| !c.is_control();
        Self {
            status,
            code,
            message: message.chars().filter(shown).take(MAX_MESSAGE).collect(),
            url: url.to_string(),
            had_token,
            wait,
        }
    }

    /// What of it is worth noting where it may pass.
    pub(crate) fn in_short(&self) -> String {
        let host = address::origin(&self.url).unwrap_or(&self.url);
        let said = if self.message.is_empty() {
            String::new()
        } else {
            format!(", {}", self.message.trim_end_matches('.'))
        };
        format!("{host} has trouble (status {}{said})", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_resolved_is_no_passing_trouble() {
        let lookup = io::Error::other("failed to lookup address information: Name or service not known");
        let failure = Failure::of("https://hub.invalid/api", &ureq::Error::Io(lookup));
        assert!(matches!(failure, Failure::Unreachable(_)), "{failure:?}");
        let reset = io::Error::from(ErrorKind::ConnectionReset);
        let failure = Failure::of("https://hub.invalid/api", &ureq::Error::Io(reset));
        assert!(matches!(failure, Failure::Network(_)), "{failure:?}");
    }

    #[test]
    fn what_is_set_up_wrongly_is_not_tried_again() {
        let refused = io::Error::new(ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer");
        let said = |error: ureq::Error| match Failure::of("https://h.example/api?sig=1", &error) {
            failure @ Failure::Setup(_) if failure.is_passing() => panic!("{failure:?}"),
            Failure::Setup(said) => said,
            other => panic!("{other:?}"),
        };
        let certificate = said(ureq::Error::Io(refused));
        assert!(
            certificate.contains("SSL_CERT_FILE") && certificate.contains("https://h.example "),
            "{certificate}"
        );
        assert!(said(ureq::Error::Tls("no")).contains("no secure connection"));
        assert!(said(ureq::Error::InvalidProxyUrl).contains("HTTPS_PROXY"));
        let address = said(ureq::Error::BadUri("no".into()));
        assert!(
            address.contains("HF_ENDPOINT") && !address.contains("sig"),
            "{address}"
        );
    }
}
