//! Page tokens: a position, sealed so that only what was given out is taken back, and only for the same request.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use quern_core::{EngineError, Reason, Result};
use sha2::{Digest, Sha256};

use super::{Node, NodeKind, Path, Rows};

/// Names the form of what is sealed; another form gets another one.
const FORM: u8 = 3;
/// How much of the HMAC a token carries.
const SEAL: usize = 16;

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) snapshot: String,
    pub(super) file: u32,
    pub(super) row: i64,
    /// How many rows all pages have, where one has counted them.
    pub(super) counted: Option<u64>,
    /// What `now()` is in the filter, where that asks, in nanoseconds since 1970 in UTC.
    pub(super) now: Option<i64>,
    /// The values that the rows are ordered by, as [`super::order::Keyset`] writes them.
    pub(super) values: Vec<u8>,
}

/// What tokens are sealed with.
#[derive(Clone)]
pub(crate) struct TokenKey(Hmac<Sha256>);

impl TokenKey {
    /// A key made from a secret of any length.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&Sha256::digest(secret));
        Self(Hmac::new(&block.into()))
    }

    fn mac(&self, sealed: &[u8], request: &[u8; 32]) -> Hmac<Sha256> {
        self.0.clone().chain_update([FORM]).chain_update(request).chain_update(sealed)
    }

    /// The token of the page after `position`, for requests with this digest.
    pub(super) fn seal(&self, position: &Position, request: &[u8; 32]) -> String {
        let mut token = Vec::with_capacity(64 + position.values.len());
        token.extend_from_slice(&position.file.to_le_bytes());
        token.extend_from_slice(&position.row.to_le_bytes());
        optional(&mut token, position.counted.map(u64::to_le_bytes));
        optional(&mut token, position.now.map(i64::to_le_bytes));
        token.extend_from_slice(&(position.snapshot.len() as u32).to_le_bytes());
        token.extend_from_slice(position.snapshot.as_bytes());
        token.extend_from_slice(&position.values);
        let seal = self.mac(&token, request).finalize().into_bytes();
        token.extend_from_slice(&seal[..SEAL]);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Reads a token. Fails with PAGE_TOKEN_INVALID where it was not given out, or for another request.
    pub(super) fn open(&self, token: &str, request: &[u8; 32]) -> Result<Position> {
        let invalid = || {
            EngineError::new(
                Reason::PageTokenInvalid,
                "`page_token` is not one that was given out for this request; keep `filter`, `fields` and `order_by` as \
                 they were, or leave the token out to start again",
            )
        };
        let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let at = token.len().checked_sub(SEAL).ok_or_else(invalid)?;
        let (sealed, seal) = token.split_at(at);
        self.mac(sealed, request).verify_truncated_left(seal).map_err(|_| invalid())?;
        read(sealed).ok_or_else(invalid)
    }
}

fn read(mut sealed: &[u8]) -> Option<Position> {
    let file = u32::from_le_bytes(*sealed.split_off(..4)?.first_chunk()?);
    let row = i64::from_le_bytes(*sealed.split_off(..8)?.first_chunk()?);
    let counted = optional_of(&mut sealed)?.map(u64::from_le_bytes);
    let now = optional_of(&mut sealed)?.map(i64::from_le_bytes);
    let length = u32::from_le_bytes(*sealed.split_off(..4)?.first_chunk()?);
    let snapshot = sealed.split_off(..usize::try_from(length).ok()?)?;
    Some(Position {
        snapshot: String::from_utf8(snapshot.to_vec()).ok()?,
        file,
        row,
        counted,
        now,
        values: sealed.to_vec(),
    })
}

/// Writes a number that there need not be.
fn optional(token: &mut Vec<u8>, number: Option<[u8; 8]>) {
    token.push(u8::from(number.is_some()));
    token.extend(number.into_iter().flatten());
}

/// Reads what [`optional`] wrote.
fn optional_of(sealed: &mut &[u8]) -> Option<Option<[u8; 8]>> {
    match sealed.split_off_first()? {
        0 => Some(None),
        _ => Some(Some(*sealed.split_off(..8)?.first_chunk()?)),
    }
}

/// A digest of what a token is bound to: all of the request but the page's size, whether to count, and the token itself.
pub(super) fn digest(rows: &Rows) -> [u8; 32] {
    let mut digest = Sha256::new();
    text(&mut digest, &rows.table);
    digest.update((rows.fields.len() as u64).to_le_bytes());
    rows.fields.iter().for_each(|path| names(&mut digest, path));
    digest.update((rows.order.len() as u64).to_le_bytes());
    for term in &rows.order {
        names(&mut digest, &term.path);
        digest.update([u8::from(term.descending)]);
    }
    if let Some(filter) = &rows.filter {
        node(&mut digest, filter);
    }
    digest.finalize().into()
}

/// Parts have their length before them, so that none runs into the next.
fn text(digest: &mut Sha256, text: &str) {
    digest.update((text.len() as u64).to_le_bytes());
    digest.update(text);
}

fn names(digest: &mut Sha256, path: &Path) {
    digest.update((path.len() as u64).to_le_bytes());
    path.iter().for_each(|name| text(digest, name));
}

fn node(digest: &mut Sha256, filter: &Node) {
    match &filter.kind {
        NodeKind::Column(path) => {
            digest.update(b"c");
            names(digest, path);
        }
        NodeKind::Word(word) => {
            digest.update(b"w");
            text(digest, word);
        }
        NodeKind::Text(value) => {
            digest.update(b"t");
            text(digest, value);
        }
        NodeKind::Number(value) => {
            digest.update(b"n");
            text(digest, value);
        }
        NodeKind::Call(function, args) => {
            digest.update(b"f");
            text(digest, function);
            digest.update((args.len() as u64).to_le_bytes());
            args.iter().for_each(|arg| node(digest, arg));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(table: &str) -> Rows {
        Rows {
            table: table.to_owned(),
            fields: vec![],
            filter: None,
            order: vec![],
            page_size: 1,
            page_token: String::new(),
            count: false,
            keys: None,
        }
    }

    #[test]
    fn tokens_are_read_only_whole_and_for_their_request() {
        let key = TokenKey::new(b"secret");
        let request = digest(&rows("t"));
        let position = |counted, now| Position {
            snapshot: "abc".to_owned(),
            file: 3,
            row: 1 << 40,
            counted,
            now,
            values: vec![1, 2, 3],
        };
        for position in [position(None, None), position(Some(u64::MAX), None), position(None, Some(-1))] {
            assert_eq!(key.open(&key.seal(&position, &request), &request), Ok(position));
        }
        let token = key.seal(&position(Some(7), Some(8)), &request);
        assert!(key.open(&token, &digest(&rows("u"))).is_err());
        assert!(TokenKey::new(b"other").open(&token, &request).is_err());
        let raw = URL_SAFE_NO_PAD.decode(&token).expect("base64");
        for at in 0..raw.len() {
            let mut wrong = raw.clone();
            wrong[at] ^= 1;
            assert!(key.open(&URL_SAFE_NO_PAD.encode(&wrong), &request).is_err());
            assert!(key.open(&URL_SAFE_NO_PAD.encode(&raw[..at]), &request).is_err());
        }
    }

    #[test]
    fn the_digest_tells_requests_apart_but_for_their_page() {
        let named = |names: &[&[&str]]| Rows {
            fields: names.iter().map(|path| path.iter().map(|n| (*n).to_owned()).collect()).collect(),
            ..rows("t")
        };
        let all = [named(&[&["a", "b"]]), named(&[&["a"], &["b"]]), named(&[&["ab"]]), rows("t"), rows("u")];
        for (i, one) in all.iter().enumerate() {
            for other in &all[..i] {
                assert_ne!(digest(one), digest(other));
            }
        }
        assert_eq!(
            digest(&Rows { page_size: 7, page_token: "x".to_owned(), count: true, ..rows("t") }),
            digest(&rows("t"))
        );
    }
}
