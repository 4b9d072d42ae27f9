//! Requests to the Hub: who asks, which redirects are followed, what an answer's status means, what is tried again.

use std::{io::Read, time::Duration};

use serde::de::DeserializeOwned;
use ureq::{
    Agent, Body, SendBody,
    http::{HeaderMap, Request, Response, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
};

use crate::{Error, Result, Settings, address};

/// More redirects than this lead nowhere.
const MAX_REDIRECTS: usize = 10;
/// The largest answer that is read into memory: a page of a listing has a thousand files.
const MAX_ANSWER: u64 = 64 << 20;
/// The longest that the Hub may think about something that was sent to it: a commit of many files takes its time.
const PATIENCE: Duration = Duration::from_secs(300);
/// What is shown of a message that the Hub sends along.
const MAX_MESSAGE: usize = 300;

/// A connection to one Hub.
pub(crate) struct Http {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    retries: u32,
    retry_after: Duration,
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody can be asked: there is no network, or no such host.
    Unreachable(String),
    /// No answer came, or not all of it.
    Network(String),
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
}

impl Failure {
    /// Whether the same request may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Network(_) => true,
            Self::Refused(refusal) => matches!(refusal.status, 408 | 429 | 500 | 502 | 503 | 504),
        }
    }
}

/// What a request has besides its address.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ask<'a> {
    /// Headers besides those of every request.
    pub headers: &'a [(&'a str, &'a str)],
}

impl Http {
    /// # Errors
    /// [`Error::Setting`] if the certificates cannot be read.
    pub fn new(settings: &Settings) -> Result<Self> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("langevin/", env!("CARGO_PKG_VERSION")))
            // Sizes and hashes are of what is stored, not of what a proxy made of it.
            .accept_encoding("identity")
            .timeout_connect(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout));
        if let Some(path) = &settings.certificates
            && settings.endpoint.starts_with("https://")
        {
            let certificates = certificates(path)?;
            config = config.tls_config(
                TlsConfig::builder()
                    .root_certs(RootCerts::new_with_certs(&certificates))
                    .build(),
            );
        }
        Ok(Self {
            agent: config.build().into(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            retries: settings.retries,
            retry_after: settings.retry_after,
        })
    }

    /// Whether requests carry a token.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks once, following redirects. The token goes to the Hub alone: the stores of large files are other hosts.
    pub fn get(&self, url: &str, ask: Ask) -> Result<Response<Body>, Failure> {
        let mut url = url.to_string();
        for _ in 0..MAX_REDIRECTS {
            let had_token = self.is_hub(&url) && self.has_token();
            let mut request = self.agent.get(&url);
            for (name, value) in ask.headers {
                request = request.header(*name, *value);
            }
            if let Some(bearer) = self.bearer(&url) {
                request = request.header(header::AUTHORIZATION, bearer);
            }
            let response = request.call().map_err(|e| network(&url, &e))?;
            match response.status().as_u16() {
                200..=299 => return Ok(response),
                301 | 302 | 303 | 307 | 308 => {
                    let Some(location) = text(response.headers(), "location") else {
                        return Err(Failure::Network(format!(
                            "{} redirects to nowhere",
                            address::without_query(&url)
                        )));
                    };
                    url = address::join(&url, location);
                }
                _ => return Err(Failure::Refused(refusal(response, &url, had_token))),
            }
        }
        Err(Failure::Network(format!(
            "{} redirects in circles",
            address::without_query(&url)
        )))
    }

    /// Asks for JSON, again where the failure may pass. The headers come along.
    pub fn get_json<T: DeserializeOwned>(&self, url: &str) -> Result<(T, HeaderMap), Failure> {
        self.patiently(|| {
            let response = self.get(url, Ask::default())?;
            let headers = response.headers().clone();
            Ok((json(response, url)?, headers))
        })
    }

    /// Sends JSON or the like, again where the failure may pass, which is for requests that may arrive twice.
    pub fn post(&self, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response<Body>, Failure> {
        self.patiently(|| self.post_once(url, headers, body))
    }

    /// Sends JSON or the like once.
    pub fn post_once(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::post(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(bearer) = self.bearer(url) {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        for (name, value) in headers {
            if *name == "content-type"
                && let Some(all) = request.headers_mut()
            {
                all.remove(header::CONTENT_TYPE);
            }
            request = request.header(*name, *value);
        }
        self.send(url, request.body(body).map_err(|e| network(url, &e.into()))?)
    }

    /// Puts `size` bytes to a store, once. The address is signed; the token does not go along.
    pub fn put(&self, url: &str, size: u64, body: &mut dyn Read) -> Result<Response<Body>, Failure> {
        let request = Request::put(url)
            .header(header::CONTENT_LENGTH, size)
            .body(SendBody::from_reader(body))
            .map_err(|e| network(url, &e.into()))?;
        self.send(url, request)
    }

    fn send(&self, url: &str, request: Request<impl ureq::AsSendBody>) -> Result<Response<Body>, Failure> {
        let had_token = request.headers().contains_key(header::AUTHORIZATION);
        let request = self
            .agent
            .configure_request(request)
            .timeout_per_read(Some(PATIENCE))
            .build();
        let response = self.agent.run(request).map_err(|e| network(url, &e))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Failure::Refused(refusal(response, url, had_token)))
        }
    }

    /// Does something again, after longer and longer waits, while its failure may pass. Where there is no network, its user should
    /// not be kept waiting.
    pub fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut repeated = 0;
        loop {
            match attempt() {
                Err(failure @ Failure::Unreachable(_)) => return Err(failure),
                Err(failure) if failure.is_passing() && repeated < self.retries => {
                    self.wait(repeated);
                    repeated += 1;
                }
                result => return result,
            }
        }
    }

    /// Waits before the repetition of this number, from 0 on.
    pub fn wait(&self, repeated: u32) {
        std::thread::sleep(self.retry_after * 2u32.pow(repeated.min(5)));
    }

    /// How often a request is repeated that brings nothing.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The Hub's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn bearer(&self, url: &str) -> Option<String> {
        let token = self.token.as_ref().filter(|_| self.is_hub(url))?;
        Some(format!("Bearer {token}"))
    }

    fn is_hub(&self, url: &str) -> bool {
        address::origin(url) == address::origin(&self.endpoint)
    }
}

/// The whole answer as JSON.
pub(crate) fn json<T: DeserializeOwned>(response: Response<Body>, url: &str) -> Result<T, Failure> {
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_reader().take(MAX_ANSWER);
    reader
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::Network(e.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Failure::Refused(Refusal {
            status: 200,
            code: None,
            message: format!("the answer is not what a Hub says: {e}"),
            url: url.to_string(),
            had_token: false,
        })
    })
}

/// A header as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn network(url: &str, error: &ureq::Error) -> Failure {
    let host = address::origin(url).unwrap_or(url);
    match error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            Failure::Unreachable(format!("{host} does not answer"))
        }
        ureq::Error::Timeout(_) => Failure::Network(format!("{host} does not answer")),
        ureq::Error::HostNotFound => Failure::Unreachable(format!("the name of {host} is not known")),
        ureq::Error::ConnectionFailed => Failure::Unreachable(format!("no connection to {host}")),
        ureq::Error::Io(e) if is_unreachable(e.kind()) => Failure::Unreachable(format!("{host}: {e}")),
        error => Failure::Network(format!("{host}: {error}")),
    }
}

fn is_unreachable(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(
        kind,
        AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable
    )
}

fn refusal(response: Response<Body>, url: &str, had_token: bool) -> Refusal {
    let headers = response.headers();
    let status = response.status().as_u16();
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
    Refusal {
        status,
        code,
        message: message.chars().filter(shown).take(MAX_MESSAGE).collect(),
        url: url.to_string(),
        had_token,
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(Error::Setting(format!(
            "{} holds no certificate: SSL_CERT_FILE and REQUESTS_CA_BUNDLE should name a file of them, in PEM",
            path.display()
        )));
    }
    Ok(certificates)
}
