//! Addresses: their parts, and what in a name must be written otherwise in them.

/// The scheme and the host with its port: `https://huggingface.co`.
pub(crate) fn origin(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    url.get(..scheme.len() + 3 + end)
}

/// Where `location`, which may be relative, leads from `url`.
pub(crate) fn join(url: &str, location: &str) -> String {
    let origin = origin(url).unwrap_or(url);
    if location.starts_with("http://") || location.starts_with("https://") {
        location.to_string()
    } else if let Some(rest) = location.strip_prefix("//") {
        let scheme = url.split_once("://").map_or("https", |(scheme, _)| scheme);
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else {
        let path = without_query(url);
        let folder = path
            .rfind('/')
            .filter(|&at| at >= origin.len())
            .map_or(path, |at| &path[..at]);
        format!("{folder}/{location}")
    }
}

/// An address without what follows a `?`: signatures are nobody's business.
pub(crate) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// One part of a path: everything but letters, digits and `-._~` becomes `%XX`, slashes too.
pub(crate) fn part(text: &str) -> String {
    encode(text, false)
}

/// A file's path, whose slashes stay.
pub(crate) fn path(text: &str) -> String {
    encode(text, true)
}

fn encode(text: &str, slashes: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            b'/' if slashes => encoded.push('/'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The address behind `rel="next"` in a `Link` header; there may be none.
///
/// # Errors
/// If the header speaks of a next page and does not say where it is: a listing without its end must not pass for a whole one.
pub(crate) fn next_page(link: &str) -> Result<Option<&str>, ()> {
    // Addresses hold commas, and semicolons too: they are taken out first.
    let (mut rest, mut outside) = (link, String::new());
    while let Some((before, (url, after))) = address_of(rest) {
        outside.push_str(before);
        let parameters = after.split('<').next().unwrap_or(after);
        if parameters.split([';', ',']).any(is_next) {
            return Ok(Some(url));
        }
        rest = after;
    }
    outside.push_str(rest);
    if outside.to_ascii_lowercase().contains("next") {
        Err(())
    } else {
        Ok(None)
    }
}

/// What is before the first `<…>`, what is in it, and what follows.
fn address_of(link: &str) -> Option<(&str, (&str, &str))> {
    let (before, after) = link.split_once('<')?;
    Some((before, after.split_once('>')?))
}

/// Whether a parameter says that its address is that of the next page: `rel` may name several relations, quoted or not.
fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_may_be_relative() {
        let url = "https://hub.example/a/b/resolve/main/x.bin?download=true";
        assert_eq!(origin(url), Some("https://hub.example"));
        for (location, leads_to) in [
            ("https://store.example/1?sig=2", "https://store.example/1?sig=2"),
            ("//store.example/1", "https://store.example/1"),
            ("/api/resolve-cache/x", "https://hub.example/api/resolve-cache/x"),
            ("y.bin", "https://hub.example/a/b/resolve/main/y.bin"),
        ] {
            assert_eq!(join(url, location), leads_to);
        }
        assert_eq!(join("https://hub.example", "x"), "https://hub.example/x");
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(part("refs/convert/parquet"), "refs%2Fconvert%2Fparquet");
        assert_eq!(path("größe 1/a+b#.png"), "gr%C3%B6%C3%9Fe%201/a%2Bb%23.png");
    }

    #[test]
    fn a_listing_names_its_next_page() {
        for (link, next) in [
            (
                "<https://h/2?cursor=x>; rel=\"next\"",
                Some("https://h/2?cursor=x"),
            ),
            (
                "<https://h/2?cursor=a,b;c>; rel=\"next\"",
                Some("https://h/2?cursor=a,b;c"),
            ),
            ("<https://h/2>;rel=next", Some("https://h/2")),
            (
                "<https://h/2>; title=\"more\"; REL=\"last next\"",
                Some("https://h/2"),
            ),
            (
                "<https://h/1>; rel=\"prev\", <https://h/3>; rel=\"next\"",
                Some("https://h/3"),
            ),
            (
                "<https://h/3>; rel=next,<https://h/1>; rel=prev",
                Some("https://h/3"),
            ),
            ("<https://h/api/x?cursor=a,b>; rel=\"prev\"", None),
            ("<https://h/next>; rel=\"prev\"", None),
            ("", None),
        ] {
            assert_eq!(next_page(link), Ok(next), "{link}");
        }
        // Half a listing must not pass for a whole one.
        for link in ["https://h/2; rel=\"next\"", "<https://h/2; rel=\"next\""] {
            assert!(next_page(link).is_err(), "{link}");
        }
    }
}
