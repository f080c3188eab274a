//! Whose request it is, as far as caches are concerned.
//!
//! What the brain keeps of one client's requests it never uses for another's, so that the time of an answer tells nobody
//! what others asked. A client is whoever knows a `cache_salt`; without one, a connection. Numbers are made with SipHash
//! under a key that is drawn at start, so that a salt that is chosen to collide with another's cannot be found.

use crate::listener::{BoundedListener, Connection};
use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use std::hash::{BuildHasher, RandomState};

/// The connection that a request came over: its number, counted from the server's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(pub(crate) u64);

impl Connected<IncomingStream<'_, BoundedListener>> for ConnectionId {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        let connection: &Connection = stream.io();
        connection.id()
    }
}

/// Makes client numbers.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    key: RandomState,
}

impl Clients {
    /// Never 0, which is the site itself.
    pub(crate) fn number(&self, salt: Option<&str>, connection: ConnectionId) -> u64 {
        let hash = match salt {
            Some(salt) => self.key.hash_one(("salt", salt)),
            None => self.key.hash_one(("connection", connection.0)),
        };
        hash.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_salts_are_one_client_and_nobody_else_is() {
        let clients = Clients::default();
        let on = |salt, connection| clients.number(salt, ConnectionId(connection));
        assert_eq!(on(Some("a"), 1), on(Some("a"), 2));
        assert_ne!(on(Some("a"), 1), on(Some("b"), 1));
        assert_eq!(on(None, 1), on(None, 1));
        assert_ne!(on(None, 1), on(None, 2));
        assert_ne!(on(Some("1"), 1), on(None, 1));
        assert_ne!(on(Some("a"), 1), Clients::default().number(Some("a"), ConnectionId(1)), "the key is new");
        assert!((0..1000).all(|connection| on(None, connection) != 0));
    }
}
