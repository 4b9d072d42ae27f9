//! Requests to the Hub: who asks, which redirects are followed, what an answer's status means, what is tried again.

use std::{io::Read, time::Duration};

use serde::de::DeserializeOwned;
use ureq::{
    Agent, Body, SendBody,
    http::{HeaderMap, Request, Response, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig},
};

use crate::{
    Error, Progress, Result, Settings, TokenSource, address,
    failure::{Failure, Refusal},
    headers::text,
    limit::{LONGEST, Limit, sleep},
};

/// More redirects than this lead nowhere.
const MAX_REDIRECTS: usize = 10;
/// The largest answer that is read into memory: a page of a listing has a thousand files.
const MAX_ANSWER: u64 = 64 << 20;
/// How often somebody waits as the Hub asks for it, at least.
const MOST_WAITS: u32 = 10;
/// The longest that the Hub may think about something that was sent to it: a commit of many files takes its time.
const PATIENCE: Duration = Duration::from_secs(300);

/// A connection to one Hub.
pub(crate) struct Http {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    token_source: TokenSource,
    retries: u32,
    retry_after: Duration,
    limit: Limit,
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
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
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
            token_source: settings.token_source.clone(),
            retries: settings.retries,
            retry_after: settings.retry_after,
            limit: Limit::default(),
        })
    }

    /// Whether requests carry a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Where the token came from.
    pub(crate) fn token_source(&self) -> &TokenSource {
        &self.token_source
    }

    /// Asks once, following redirects. The token goes to the Hub alone: the stores of large files are other hosts.
    pub(crate) fn get(&self, url: &str, ask: Ask) -> Result<Response<Body>, Failure> {
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
            let response = request.call().map_err(|e| Failure::of(&url, &e))?;
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
                _ => return Err(Failure::Refused(Refusal::of(response, &url, had_token))),
            }
        }
        Err(Failure::Network(format!(
            "{} redirects in circles",
            address::without_query(&url)
        )))
    }

    /// Asks for JSON, again where the failure may pass. The headers come along.
    pub(crate) fn get_json<T: DeserializeOwned>(
        &self,
        url: &str,
        progress: &dyn Progress,
    ) -> Result<(T, HeaderMap), Failure> {
        self.patiently(progress, || {
            let response = self.get(url, Ask::default())?;
            let headers = response.headers().clone();
            Ok((json(response, url)?, headers))
        })
    }

    /// Sends JSON or the like, again where the failure may pass, which is for requests that may arrive twice.
    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        progress: &dyn Progress,
    ) -> Result<Response<Body>, Failure> {
        self.patiently(progress, || self.post_once(url, headers, body))
    }

    /// The same for an answer in JSON, which may break off too.
    pub(crate) fn post_json<T: DeserializeOwned>(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        progress: &dyn Progress,
    ) -> Result<T, Failure> {
        self.patiently(progress, || json(self.post_once(url, headers, body)?, url))
    }

    /// Sends JSON or the like once. A redirect that keeps the method is followed on the same host: a repository may have another name now.
    pub(crate) fn post_once(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response<Body>, Failure> {
        let mut url = url.to_string();
        for _ in 0..MAX_REDIRECTS {
            let mut request = Request::post(&url).header(header::CONTENT_TYPE, "application/json");
            if let Some(bearer) = self.bearer(&url) {
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
            let had_token = self.bearer(&url).is_some();
            let request = request.body(body).map_err(|e| Failure::of(&url, &e.into()))?;
            let response = self.send(&url, request)?;
            let location = text(response.headers(), "location").map(|location| address::join(&url, location));
            match (response.status().as_u16(), location) {
                (200..=299, _) => return Ok(response),
                (307 | 308, Some(next)) if address::origin(&next) == address::origin(&url) => url = next,
                _ => return Err(Failure::Refused(Refusal::of(response, &url, had_token))),
            }
        }
        Err(Failure::Network(format!(
            "{} redirects in circles",
            address::without_query(&url)
        )))
    }

    /// Puts `size` bytes to a store, once. The address is signed; the token does not go along.
    pub(crate) fn put(&self, url: &str, size: u64, body: &mut dyn Read) -> Result<Response<Body>, Failure> {
        let request = Request::put(url)
            .header(header::CONTENT_LENGTH, size)
            .body(SendBody::from_reader(body))
            .map_err(|e| Failure::of(url, &e.into()))?;
        let response = self.send(url, request)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Failure::Refused(Refusal::of(response, url, false)))
        }
    }

    fn send(&self, url: &str, request: Request<impl ureq::AsSendBody>) -> Result<Response<Body>, Failure> {
        let request = self
            .agent
            .configure_request(request)
            .timeout_per_read(Some(PATIENCE))
            .build();
        self.agent.run(request).map_err(|e| Failure::of(url, &e))
    }

    /// Does something again, after longer and longer waits, while its failure may pass. Where there is no network, its user should
    /// not be kept waiting.
    pub(crate) fn patiently<T>(
        &self,
        progress: &dyn Progress,
        attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.repeat(progress, Failure::is_passing, attempt)
    }

    /// Does something again only where the Hub has not looked at it, because it was asked too much.
    pub(crate) fn when_allowed<T>(
        &self,
        progress: &dyn Progress,
        attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let was_too_much =
            |failure: &Failure| matches!(failure, Failure::Refused(Refusal { status: 429, .. }));
        self.repeat(progress, was_too_much, attempt)
    }

    fn repeat<T>(
        &self,
        progress: &dyn Progress,
        may_pass: impl Fn(&Failure) -> bool,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut repeated = 0;
        loop {
            self.limit.wait(&|| false);
            match attempt() {
                Err(failure @ Failure::Unreachable(_)) => return Err(failure),
                Err(failure) if may_pass(&failure) => {
                    self.wait(failure, repeated, progress, &|| false)?;
                    repeated += 1;
                }
                result => return result,
            }
        }
    }

    /// Waits before the repetition of this number, from 0 on, and says so: as long as the Hub asks for, or longer with every time.
    ///
    /// # Errors
    /// The failure, where it was repeated often enough, or the Hub wants to be left alone for longer than anybody waits.
    pub(crate) fn wait(
        &self,
        failure: Failure,
        repeated: u32,
        progress: &dyn Progress,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        // Many threads may be told to wait several times, one after another, through no trouble of their own.
        let is_told = matches!(
            &failure,
            Failure::Refused(Refusal {
                status: 429,
                wait: Some(_),
                ..
            })
        );
        let most = if is_told {
            self.retries.max(MOST_WAITS)
        } else {
            self.retries
        };
        if repeated >= most {
            return Err(failure);
        }
        let why = match &failure {
            Failure::Refused(Refusal {
                status: 429,
                wait: Some(wait),
                ..
            }) => {
                if *wait > LONGEST {
                    return Err(failure);
                }
                self.limit.note(*wait, progress);
                self.limit.wait(stop);
                return Ok(());
            }
            Failure::Unreachable(why) | Failure::Network(why) | Failure::Setup(why) => why.clone(),
            Failure::Refused(refusal) => refusal.in_short(),
        };
        let time = self.retry_after * 2u32.pow(repeated.min(5));
        progress.note(&format!(
            "{why}; trying again ({} of {}) in {} s",
            repeated + 1,
            self.retries,
            time.as_secs_f64().round().max(1.0)
        ));
        sleep(time, stop);
        Ok(())
    }

    /// Waits while the Hub wants to be left alone, or until `stop` says so.
    pub(crate) fn wait_until_allowed(&self, stop: &dyn Fn() -> bool) {
        self.limit.wait(stop);
    }

    /// The Hub's address.
    pub(crate) fn endpoint(&self) -> &str {
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
    serde_json::from_slice(&bytes).map_err(|e| Failure::unexpected(url, &e.to_string()))
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
