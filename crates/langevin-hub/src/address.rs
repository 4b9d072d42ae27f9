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

/// The address behind `rel="next"` in a `Link` header.
pub(crate) fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|entry| {
        let (url, rest) = entry.trim().strip_prefix('<')?.split_once('>')?;
        rest.split(';')
            .any(|word| word.trim() == "rel=\"next\"")
            .then_some(url)
    })
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
        let link = "<https://h/api/x?cursor=a,b>; rel=\"prev\"";
        assert_eq!(next_page(link), None);
        assert_eq!(
            next_page("<https://h/2?cursor=x>; rel=\"next\""),
            Some("https://h/2?cursor=x")
        );
        assert_eq!(
            next_page("<https://h/1>; rel=\"prev\", <https://h/3>; rel=\"next\""),
            Some("https://h/3")
        );
    }
}
