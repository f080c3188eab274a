//! Bytes: lines, hashes, the key, the head.
//!
//! A line is `BODY,"hash":"<64 hex>"}` and a newline, where `BODY` starts with `{"seq":N,`. The hash is SHA-256 over the
//! previous line's hash (32 bytes; zeros before the first line) and the bytes of `BODY`. The chain goes over file
//! boundaries.
//!
//! The head is one line: `ganglion-audit-head 1 COUNT HASH NEXT_COUNT NEXT_HASH MAC`. Before a batch is appended the
//! head announces where the log will end (`NEXT_*`), afterwards both pairs are equal. So a log whose end lies
//! between the pairs was interrupted while writing, and any other end was tampered with. `MAC` is HMAC-SHA256 under a
//! key derived from the log's, so that no recorded sentence can double as a head.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// A SHA-256 value.
pub(crate) type Hash = [u8; 32];

const HASH_FIELD: &str = ",\"hash\":\"";
const HASH_TAIL_BYTES: usize = HASH_FIELD.len() + 64 + 2;

/// The log's secret.
#[derive(Clone)]
pub(crate) struct Key(pub Hash);

impl Key {
    /// 64 lower-case hexadecimal digits and a newline.
    pub fn parse(text: &[u8]) -> Option<Self> {
        parse_hash(text.strip_suffix(b"\n")?).map(Self)
    }

    /// HMAC-SHA256 of an operator's text.
    pub fn sentence(&self, text: &str) -> String {
        hex(&mac(&self.0, text.as_bytes()))
    }
}

/// End of the log as the writer vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub count: u64,
    pub hash: Hash,
    pub next_count: u64,
    pub next_hash: Hash,
}

impl Head {
    /// Nothing is being written.
    pub fn sealed(count: u64, hash: Hash) -> Self {
        Self { count, hash, next_count: count, next_hash: hash }
    }

    pub fn render(&self, key: &Key) -> String {
        let body = format!(
            "ganglion-audit-head 1 {} {} {} {}",
            self.count,
            hex(&self.hash),
            self.next_count,
            hex(&self.next_hash)
        );
        let seal = mac(&mac(&key.0, b"ganglion audit head key"), body.as_bytes());
        format!("{body} {}\n", hex(&seal))
    }

    /// `None` unless the bytes are exactly what [`Head::render`] makes under `key`.
    pub fn parse(bytes: &[u8], key: &Key) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split_ascii_whitespace().skip(2);
        let mut pair = || Some((words.next()?.parse().ok()?, parse_hash(words.next()?.as_bytes())?));
        let ((count, hash), (next_count, next_hash)) = (pair()?, pair()?);
        let head = Self { count, hash, next_count, next_hash };
        (head.render(key) == text).then_some(head)
    }
}

/// The line for `body` (which ends with `}`), and its hash.
pub(crate) fn seal_line(previous: &Hash, body: &str) -> (String, Hash) {
    let body = body.strip_suffix('}').unwrap_or(body);
    let hash = chain(previous, body.as_bytes());
    (format!("{body}{HASH_FIELD}{}\"}}\n", hex(&hash)), hash)
}

/// Splits a line without its newline into body and hash; `None` when it has not that form.
pub(crate) fn open_line(line: &[u8]) -> Option<(&[u8], Hash)> {
    let (body, tail) = line.split_at_checked(line.len().checked_sub(HASH_TAIL_BYTES)?)?;
    let digits = tail.strip_prefix(HASH_FIELD.as_bytes())?.strip_suffix(b"\"}")?;
    Some((body, parse_hash(digits)?))
}

/// SHA-256 over the previous hash and the body.
pub(crate) fn chain(previous: &Hash, body: &[u8]) -> Hash {
    Sha256::new().chain_update(previous).chain_update(body).finalize().into()
}

/// Plain SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// The sequence number at the start of a body.
pub(crate) fn sequence_of(body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(b"{\"seq\":")?;
    let end = rest.iter().position(|b| !b.is_ascii_digit())?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
        }
        out
    })
}

pub(crate) fn parse_hash(digits: &[u8]) -> Option<Hash> {
    let mut out = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (place, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *place = match pair {
            [high, low] => nibble(*high)? << 4 | nibble(*low)?,
            _ => return None,
        };
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn mac(key: &[u8], text: &[u8]) -> Hash {
    // HMAC takes keys of any length, so this does not fail.
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac.chain_update(text).finalize().into_bytes().into(),
        Err(_) => [0; 32],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_rfc_4231_case_2() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&mac(b"Jefe", b"what do ya want for nothing?")), expected);
    }

    #[test]
    fn lines_and_heads_survive_a_round_trip() {
        let (line, hash) = seal_line(&[0; 32], "{\"seq\":7,\"kind\":\"mode\"}");
        let (body, found) = open_line(line.trim_end().as_bytes()).unwrap();
        assert_eq!((sequence_of(body), found), (Some(7), hash));
        assert_eq!(chain(&[0; 32], body), hash);
        let key = Key([3; 32]);
        let head = Head { count: 3, hash, next_count: 5, next_hash: [9; 32] };
        assert_eq!(Head::parse(head.render(&key).as_bytes(), &key), Some(head));
        assert_eq!(Head::parse(head.render(&Key([4; 32])).as_bytes(), &key), None);
    }
}
