//! GoTrue's tokens: refresh tokens and the references that stand for them in the store, the claims
//! of access tokens, and the answers that carry both.

mod claims;
mod issued;
pub(crate) mod lenient;

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose::NO_PAD};

pub use claims::{Amr, Claims, Email, Named};
pub use issued::Issued;

use crate::session::{RefreshRef, SessionId};

/// base64url as Go's `RawURLEncoding` reads it: no padding, bits left over at the end are ignored.
pub(crate) const BASE64URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LIKE_GO);
const LIKE_GO: GeneralPurposeConfig = NO_PAD.with_decode_allow_trailing_bits(true);

/// A refresh token, in clear: it lives as long as the request that carries it, is never printed and
/// never stored. Any text can be one (contract §5, GS §3.3: opaque v1 tokens of several lengths,
/// UUIDs, v2 tokens).
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken<'a> {
    text: Cow<'a, str>,
    v2: Option<(SessionId, u64)>,
}

impl<'a> RefreshToken<'a> {
    /// Takes any text. Session and counter are read out only where the checksum of a v2 token fits.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        let text = text.into();
        let v2 = read_v2(&text);
        Self { text, v2 }
    }

    /// The session inside a v2 token. The checksum shows that the form is right, not that GoTrue
    /// made the token: anybody can compute it.
    pub fn session(&self) -> Option<SessionId> {
        self.v2.map(|(session, _)| session)
    }

    /// The counter inside a v2 token: each refresh adds one, a verified second factor two.
    pub fn counter(&self) -> Option<u64> {
        self.v2.map(|(_, counter)| counter)
    }
}

impl fmt::Debug for RefreshToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

const CHECKSUM: usize = 4;
const SIGNATURE: usize = 16;
/// 39 bytes: one of each counter byte at least (`internal/crypto/refresh_tokens.go`).
const V2_LEAST_TEXT: usize = 51;
/// The counter takes ten bytes at most.
const V2_MOST_TEXT: usize = 64;

/// `0x00 ‖ session id ‖ uvarint counter ‖ 16 bytes of HMAC ‖ 4 bytes of SHA-256 over all before`.
fn read_v2(text: &str) -> Option<(SessionId, u64)> {
    if !(V2_LEAST_TEXT..=V2_MOST_TEXT).contains(&text.len()) {
        return None;
    }
    let bytes = BASE64URL.decode(text).ok()?;
    let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    let hash = digest::digest(&digest::SHA256, content);
    if hash.as_ref().get(..CHECKSUM)? != checksum {
        return None;
    }
    let (id, rest) = content.strip_prefix(&[0])?.split_first_chunk::<16>()?;
    let (counter, signature) = read_uvarint(rest)?;
    (signature.len() == SIGNATURE)
        .then(|| SessionId::from_bytes(*id))
        .flatten()
        .map(|session| (session, counter))
}

/// Go's `binary.Uvarint`: seven bits a byte, lowest first; `None` when cut off or above 64 bits.
fn read_uvarint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == 9 && *byte > 1 {
            return None;
        }
        value |= bits << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

/// The key that turns refresh tokens into what the store may hold of them (contract §5).
#[derive(Clone)]
pub struct RefKey(hmac::Key);

/// What the derived key is for; changing it forgets every reference in the store.
const DERIVED_FOR: &[u8] = b"gotrue-sidecar refresh-ref v1";

impl RefKey {
    /// From key bytes (`store.ref_key`), of any length.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Derived from the JWT secret, so that every replica has the same without configuration:
    /// HKDF-SHA256 (RFC 5869) without salt, for 32 bytes, which is one block.
    pub fn derived(jwt_secret: &[u8]) -> Self {
        let extract = hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]);
        let expand = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&extract, jwt_secret).as_ref());
        let mut block = hmac::Context::with_key(&expand);
        block.update(DERIVED_FOR);
        block.update(&[1]);
        Self::new(block.sign().as_ref())
    }

    /// The reference of a token: the same for the same token and key, always.
    pub fn reference(&self, token: &RefreshToken<'_>) -> RefreshRef {
        RefreshRef::from_tag(hmac::sign(&self.0, token.text.as_bytes()).as_ref())
    }
}

impl fmt::Debug for RefKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefKey(…)")
    }
}

/// As much of `text` as fits into `most` bytes without splitting a character.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hkdf;

    use super::*;

    const V2: &str = "AK9WTZFS4kq3uO8laXQuCjIAjEG30vn8JpHR6bxnmLdr78N6Jl0";

    fn v2(version: u8, id: [u8; 16], counter: &[u8], signature: &[u8]) -> String {
        let mut bytes = vec![version];
        bytes.extend(id);
        bytes.extend(counter);
        bytes.extend(signature);
        let hash = digest::digest(&digest::SHA256, &bytes);
        bytes.extend(&hash.as_ref()[..4]);
        BASE64URL.encode(bytes)
    }

    #[test]
    fn a_v2_token_names_its_session_and_counter() {
        let token = RefreshToken::new(V2);
        assert_eq!(
            token.session().map(|id| id.to_string()).as_deref(),
            Some("af564d91-52e2-4ab7-b8ef-2569742e0a32")
        );
        assert_eq!(token.counter(), Some(0));
        let counted = RefreshToken::new(v2(0, [7; 16], &[0xac, 0x02], &[1; 16]));
        assert_eq!(counted.counter(), Some(300));
    }

    #[test]
    fn whatever_is_not_a_v2_token_is_opaque() {
        let ten = [0xff; 9].iter().chain(&[0x02]).copied().collect::<Vec<_>>();
        for text in [
            String::new(),
            "abcdefghijkl".to_owned(),
            "tuAfNerNy6ywG5CefzYiQQ".to_owned(),
            "0191d1a0-0000-7000-8000-000000000001".to_owned(),
            V2.replace("AK9", "AK8"),
            format!("{V2}="),
            "é".repeat(30),
            v2(1, [7; 16], &[1], &[1; 16]),
            v2(0, [0; 16], &[1], &[1; 16]),
            v2(0, [7; 16], &[1], &[1; 15]),
            v2(0, [7; 16], &[1], &[1; 17]),
            v2(0, [7; 16], &ten, &[1; 16]),
        ] {
            let token = RefreshToken::new(text.as_str());
            assert_eq!((token.session(), token.counter()), (None, None), "{text}");
        }
    }

    #[test]
    fn a_reference_is_stable_and_keyed() {
        let token = RefreshToken::new("abcdefghijkl");
        let key = RefKey::new(b"0123456789abcdef0123456789abcdef");
        let reference = key.reference(&token);
        assert_eq!(reference, key.reference(&RefreshToken::new("abcdefghijkl".to_owned())));
        assert_eq!(RefreshRef::parse(reference.as_str()), Some(reference.clone()));
        assert_ne!(reference, RefKey::derived(b"secret").reference(&token));
        assert_ne!(reference, key.reference(&RefreshToken::new("abcdefghijkm")));
    }

    #[test]
    fn the_derived_key_is_hkdf() {
        let mut key = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(b"a jwt secret")
            .expand(&[DERIVED_FOR], hkdf::HKDF_SHA256)
            .unwrap()
            .fill(&mut key)
            .unwrap();
        let token = RefreshToken::new(V2);
        assert_eq!(RefKey::derived(b"a jwt secret").reference(&token), RefKey::new(&key).reference(&token));
    }

    #[test]
    fn nothing_of_a_token_or_key_is_printed() {
        let printed = format!("{:?} {:?}", RefreshToken::new(V2), RefKey::new(b"hunter2hunter2"));
        assert_eq!(printed, "RefreshToken(…) RefKey(…)");
    }
}
