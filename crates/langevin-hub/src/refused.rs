//! What the Hub's "no" means, and what its user can do about it.

use crate::{
    Error, RepoId, address,
    failure::{Failure, Refusal},
    http::Http,
};

/// A failed request about a repository, as an error.
pub(crate) fn failed(failure: Failure, repo: &RepoId, http: &Http) -> Error {
    match failure {
        Failure::Refused(refusal) => refused(refusal, repo, http),
        failure => unreached(failure),
    }
}

/// A request that did not come to an answer, as an error.
pub(crate) fn unreached(failure: Failure) -> Error {
    match failure {
        Failure::Network(why) | Failure::Unreachable(why) => Error::Network(format!(
            "the Hub cannot be reached: check the network, or HF_ENDPOINT if it is set ({why})"
        )),
        Failure::Setup(why) => Error::Network(why),
        Failure::Refused(refusal) => Error::Answer(format!(
            "the Hub answered {} with status {}{}",
            address::without_query(&refusal.url),
            refusal.status,
            said(&refusal)
        )),
    }
}

/// The Hub does not know the token.
pub(crate) fn unknown_token(http: &Http) -> Error {
    Error::Token(format!(
        "the Hub does not know the token {}: put one from {}/settings/tokens in its place, or remove it",
        http.token_source(),
        http.endpoint()
    ))
}

/// The Hub's own words, where it has any, as the end of a sentence.
fn said(refusal: &Refusal) -> String {
    if refusal.message.is_empty() {
        String::new()
    } else {
        format!(" (it says: {})", refusal.message.trim_end_matches('.'))
    }
}

/// The Hub's no about a repository, as an error.
pub(crate) fn refused(refusal: Refusal, repo: &RepoId, http: &Http) -> Error {
    let kind = repo.kind.spoken();
    let endpoint = http.endpoint();
    let page = format!("{endpoint}/{}{repo}", repo.kind.prefix());
    let tokens = format!("{endpoint}/settings/tokens");
    let source = http.token_source();
    let said = said(&refusal);
    if refusal.message.starts_with("Access to this resource is disabled") {
        return Error::NoSuchRepository(format!(
            "the Hub has disabled access to the {kind} {repo}, with a token or without: see {page} for why"
        ));
    }
    match (refusal.status, refusal.code.as_deref()) {
        (_, Some("GatedRepo")) if refusal.had_token => Error::Gated(format!(
            "the {kind} {repo} is gated, and the owner of the token {source} has no access: ask for it at {page}{said}"
        )),
        (_, Some("GatedRepo")) => Error::Gated(format!(
            "the {kind} {repo} is gated: ask for access at {page}, and set HF_TOKEN to a token of that account \
             ({tokens}){said}"
        )),
        (_, Some("RevisionNotFound")) => Error::NoSuchRevision(format!(
            "{repo} has no such revision: a branch, a tag or a commit of {page} should follow the `@`"
        )),
        (_, Some("EntryNotFound")) => Error::NoSuchFile(format!(
            "{repo} has no such file: {}",
            address::without_query(&refusal.url)
        )),
        (401, _) if refusal.had_token && refusal.message.starts_with("Invalid credentials") => {
            unknown_token(http)
        }
        (401 | 404, Some("RepoNotFound") | None) if refusal.had_token => Error::NoSuchRepository(format!(
            "there is no {kind} {repo} at {endpoint}, or the token {source} may not see it: check the name, and what that token \
             may do"
        )),
        (401 | 404, Some("RepoNotFound") | None) => Error::NoSuchRepository(format!(
            "there is no {kind} {repo} at {endpoint}, or it is private: check the name, and set HF_TOKEN to a token that \
             may see it ({tokens})"
        )),
        (403, _) if refusal.had_token => Error::Token(format!(
            "the Hub does not allow this for {repo}: the token {source} needs the right to do it ({tokens}){said}"
        )),
        (403, _) => Error::Token(format!(
            "the Hub does not allow this for {repo} without a token: set HF_TOKEN to one from {tokens}{said}"
        )),
        (402, _) => Error::Answer(format!(
            "the Hub wants to be paid for this before it does it for {repo}{said}"
        )),
        (429, _) => Error::Network(format!(
            "the Hub asks for fewer requests: wait {} and run the same again{}",
            refusal.wait.map_or_else(
                || "some minutes".into(),
                |wait| format!("{} min", wait.as_secs().div_ceil(60))
            ),
            if refusal.had_token {
                ""
            } else {
                "; with HF_TOKEN set it allows more"
            }
        )),
        (status @ 500.., _) => Error::Network(format!(
            "the Hub has trouble (status {status}): run the same again later{said}"
        )),
        (status, _) => Error::Answer(format!(
            "the Hub answered {} with status {status}{said}",
            address::without_query(&refusal.url)
        )),
    }
}
