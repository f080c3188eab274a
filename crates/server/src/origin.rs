//! Keeps web pages out: a page in the user's browser can send requests to loopback, also under a host name of its own
//! that it lets resolve there (DNS rebinding). Such requests carry that name in `Host`, or its site in `Origin`.

use crate::error::Refusal;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use std::net::IpAddr;

/// # Errors
/// `Host` is missing, repeated or no loopback name; `Origin` is there and not this server's own.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let refused = |message: &str| Err(Refusal::new(StatusCode::FORBIDDEN, "foreign_origin", message));
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return refused("exactly one Host header is expected");
    };
    let Some(host) = host.to_str().ok().filter(|host| is_loopback(host)) else {
        return refused("the Host header must be localhost, 127.0.0.1 or [::1], with or without a port");
    };
    if uri.authority().is_some_and(|authority| !is_loopback(authority.as_str())) {
        return refused("the request's target must be on this machine");
    }
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        if !own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return refused("requests from web pages of other origins are refused");
        }
    }
    Ok(())
}

/// `name`, `name:port`, `[v6]`, `[v6]:port`.
fn is_loopback(authority: &str) -> bool {
    let name = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if port.is_empty() || is_port(port) => v6,
            _ => return false,
        },
        None => match authority.find(':') {
            Some(at) if is_port(&authority[at..]) => &authority[..at],
            Some(_) => return false,
            None => authority,
        },
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn only_loopback_names_pass() {
        for good in
            ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8420", "127.9.9.9", "[::1]", "[::1]:1"]
        {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "localhost:x",
            "localhost:80:80",
            "[::1",
            "[::1]x",
            "user@localhost",
            "0.0.0.0",
            "::1",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
