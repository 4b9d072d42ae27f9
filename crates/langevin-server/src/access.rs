//! Who may call, and what every answer says to browsers.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{app::App, refusal::Refusal};

/// What a key comes after in its header.
const SCHEME: &[u8] = b"Bearer ";
/// Everything is the server's own: no other host is asked for anything, nothing inline runs, and no other page may frame this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    media-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Counts answers, and says on every one what browsers may do with it.
pub(crate) async fn dress(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let allowed = allowed_origin(app.options.allow_origin.as_deref(), origin.as_ref());
    let mut response = match (is_preflight, &allowed) {
        (true, Some(_)) => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    app.metrics.response(response.status().as_u16());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Some(origin) = allowed {
        allow(headers, origin);
    }
    response
}

/// What `Access-Control-Allow-Origin` is to be, where the origin may call.
fn allowed_origin(allowed: Option<&str>, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    match allowed? {
        "*" => Some(HeaderValue::from_static("*")),
        allowed => origin
            .filter(|origin| origin.as_bytes() == allowed.as_bytes())
            .cloned(),
    }
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type",
        ),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Where only this machine can call and no key is asked for, refuses what calls the server by another name: a page whose own name was made
/// to lead here (DNS rebinding) would pass for the server's own with the browser.
pub(crate) async fn known_host(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    // Browsers say it always.
    if !app.only_local || host.is_none_or(|host| is_known(host, app.options.allow_origin.as_deref())) {
        return next.run(request).await;
    }
    let message = "without a key this server answers to localhost and to addresses in numbers alone; start it with `--api-key`, or \
        with the `--allow-origin` that pages of this name have";
    Refusal::new(StatusCode::FORBIDDEN, message).into_response()
}

/// Whether a `Host` is an address, which no name leads to, this machine, or the origin that may call.
fn is_known(host: &HeaderValue, allowed_origin: Option<&str>) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let name = authority.host();
    let is_allowed = |origin: &str| {
        let allowed = origin
            .split_once("://")
            .map_or(origin, |(_, authority)| authority);
        origin == "*" || allowed.eq_ignore_ascii_case(authority.as_str())
    };
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
        || allowed_origin.is_some_and(is_allowed)
}

/// Lets in who knows the key, where there is one.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let Some(key) = &app.options.api_key else {
        return next.run(request).await;
    };
    let given = request.headers().get(header::AUTHORIZATION);
    // The scheme's name may be in any case (RFC 9110, 11.1).
    let given = given.and_then(|value| value.as_bytes().split_at_checked(SCHEME.len()));
    let given = given.and_then(|(scheme, key)| scheme.eq_ignore_ascii_case(SCHEME).then_some(key));
    if given.is_some_and(|given| is_same(given, key.as_bytes())) {
        return next.run(request).await;
    }
    let message = "this server wants its API key, as in `Authorization: Bearer KEY`";
    let mut response = Refusal::new(StatusCode::UNAUTHORIZED, message).into_response();
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Whether both are the same, in a time that does not tell where they differ.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_or_not() {
        assert!(is_same(b"key", b"key"));
        for (a, b) in [("key", "kez"), ("key", "ke"), ("", "key"), ("key", "keyy")] {
            assert!(!is_same(a.as_bytes(), b.as_bytes()));
        }
    }

    #[test]
    fn hosts_are_addresses_this_machine_or_the_origin_that_was_named() {
        let known = |host: &'static str, origin| is_known(&HeaderValue::from_static(host), origin);
        for host in [
            "127.0.0.1:7860",
            "localhost",
            "LocalHost:7860",
            "[::1]:80",
            "192.168.0.7",
        ] {
            assert!(known(host, None), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7860",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a b",
        ] {
            assert!(!known(host, None), "{host}");
            assert!(!known(host, Some("https://a.example")), "{host}");
        }
        assert!(known("a.example:8000", Some("http://a.example:8000")));
        assert!(known("a.example", Some("*")));
    }

    #[test]
    fn only_the_origin_that_was_named_is_allowed() {
        let origin = HeaderValue::from_static("https://a.example");
        assert_eq!(allowed_origin(None, Some(&origin)), None);
        assert_eq!(allowed_origin(Some("https://b.example"), Some(&origin)), None);
        assert_eq!(allowed_origin(Some("https://a.example"), None), None);
        assert_eq!(
            allowed_origin(Some("https://a.example"), Some(&origin)),
            Some(origin)
        );
        assert!(allowed_origin(Some("*"), None).is_some());
    }
}
