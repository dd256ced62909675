//! Keys that verify GoTrue's access tokens, and the verdict on a token.
//!
//! The algorithm comes from the key, never from the token: a token whose header names another one
//! finds no key. Symmetric keys come from the configuration only, so a public key cannot become a
//! shared secret. Which key a token is checked with follows GoTrue (`internal/api/auth.go:parseJWTClaims`):
//! the one its `kid` names, else for HS256 the shared secret.

mod mint;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::session::Seconds;
use crate::token::lenient::{self, Text};
use crate::token::{BASE64URL, Claims};

/// Longest token that is looked at, in bytes: GoTrue's are one to four kilobytes.
pub const TOKEN_MAX: usize = 16 * 1024;

/// Most keys that are taken from one JWKS document.
const JWKS_MAX: usize = 64;

/// What is known of a Bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A known key made it, and it is valid now.
    Good(Arc<Claims>),
    /// A known key made it, but its `exp` has passed.
    Expired(Arc<Claims>),
    /// No key is known at all. The claims are unproven.
    NoKeys(Arc<Claims>),
    /// Keys are known, but not the one it names: fetching the JWKS again may help. The claims are
    /// unproven.
    UnknownKey(Arc<Claims>),
    /// No token, a wrong signature, an algorithm that is not allowed, or not valid yet.
    Bad,
}

impl Verdict {
    /// The claims, if a known key signed them.
    pub fn proven(&self) -> Option<&Claims> {
        match self {
            Self::Good(claims) | Self::Expired(claims) => Some(claims),
            Self::NoKeys(_) | Self::UnknownKey(_) | Self::Bad => None,
        }
    }

    /// The claims, unless the token is known to be bad: to be acted on where GoTrue itself has just
    /// accepted the token.
    pub fn claimed(&self) -> Option<&Claims> {
        match self {
            Self::Good(claims) | Self::Expired(claims) | Self::NoKeys(claims) | Self::UnknownKey(claims) => {
                Some(claims)
            }
            Self::Bad => None,
        }
    }
}

/// Why keys were not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Not JSON, or not of the expected shape.
    #[error("expected {expected}")]
    Shape {
        /// What it should have been.
        expected: &'static str,
    },
    /// One entry is not usable.
    #[error("key {index}: expected {expected}")]
    Entry {
        /// Its place, from 0.
        index: usize,
        /// What it should have been.
        expected: &'static str,
    },
}

/// The keys known at one moment. Cheap to clone; a new JWKS makes a new ring.
#[derive(Clone, Default)]
pub struct KeyRing {
    configured: Arc<[Key]>,
    fetched: Arc<[Key]>,
    skipped: usize,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    material: DecodingKey,
}

impl KeyRing {
    /// From what is configured: `secret` verifies HS256 tokens (GoTrue's `GOTRUE_JWT_SECRET`),
    /// `keys` is a JSON array of JWKs, private ones included (`GOTRUE_JWT_KEYS`).
    pub fn new(secret: Option<&[u8]>, keys: Option<&[u8]>) -> Result<Self, KeyError> {
        let mut ring = Vec::new();
        if let Some(secret) = secret.filter(|secret| !secret.is_empty()) {
            ring.push(Key {
                id: None,
                algorithm: Algorithm::HS256,
                material: DecodingKey::from_secret(secret),
            });
        }
        let mut skipped = 0;
        for (index, entry) in keys.map_or(Ok(Vec::new()), array)?.into_iter().enumerate() {
            let expected = "a JSON Web Key with its public part in base64url";
            match Key::read(entry).map_err(|BadKey| KeyError::Entry { index, expected })? {
                Some(key) => ring.push(key),
                None => skipped += 1,
            }
        }
        Ok(Self { configured: ring.into(), fetched: Arc::default(), skipped })
    }

    /// The same ring with the keys of a JWKS document (RFC 7517 §5) in the place of those fetched
    /// before. Entries that are broken, of unknown type, or symmetric are left out; so is whatever
    /// comes after the 64th.
    pub fn with_jwks(&self, json: &[u8]) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document = serde_json::from_slice(json)
            .map_err(|_| KeyError::Shape { expected: "a JSON object with an array `keys`" })?;
        let usable = |entry| Key::read(entry).ok().flatten();
        let fetched: Vec<Key> = document
            .keys
            .into_iter()
            .take(JWKS_MAX)
            .filter_map(usable)
            .filter(|key| key.algorithm != Algorithm::HS256)
            .collect();
        Ok(Self { fetched: fetched.into(), ..self.clone() })
    }

    /// This ring with the configured keys of another: for secrets that were exchanged.
    #[must_use]
    pub fn with_configured(&self, other: &Self) -> Self {
        Self {
            configured: Arc::clone(&other.configured),
            fetched: Arc::clone(&self.fetched),
            skipped: other.skipped,
        }
    }

    /// No key at all: nothing can be verified here.
    pub fn is_empty(&self) -> bool {
        self.configured.is_empty() && self.fetched.is_empty()
    }

    /// How many configured keys were left out because their type or algorithm is not supported
    /// (ES512, and whatever GoTrue does not sign with).
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Judges a token as GoTrue would: signature, `exp` and `nbf`, without leeway.
    pub fn verify(&self, token: &str, now: Seconds) -> Verdict {
        let Some(token) = Parts::of(token) else {
            return Verdict::Bad;
        };
        let Some(claims) = Claims::from_payload(token.payload).map(Arc::new) else {
            return Verdict::Bad;
        };
        if self.is_empty() {
            return Verdict::NoKeys(claims);
        }
        match self.signed(&token) {
            None => Verdict::UnknownKey(claims),
            Some(false) => Verdict::Bad,
            Some(true) if claims.not_before.is_some_and(|start| now < start) => Verdict::Bad,
            Some(true) if claims.expires_at.is_some_and(|end| now >= end) => Verdict::Expired(claims),
            Some(true) => Verdict::Good(claims),
        }
    }

    /// Whether a key that may have signed the token did; `None` where there is no such key.
    fn signed(&self, token: &Parts<'_>) -> Option<bool> {
        let named = |key: &&Key| token.key_id.is_some() && key.id.as_deref() == token.key_id.as_deref();
        if self.keys().any(|key| named(&key)) {
            return Some(
                self.keys().filter(named).any(|key| key.algorithm == token.algorithm && key.signed(token)),
            );
        }
        // A key id that is not known: only the shared secret may stand in.
        let mut unnamed = self
            .keys()
            .filter(|key| key.id.is_none() && key.algorithm == token.algorithm)
            .filter(|_| token.key_id.is_none() || token.algorithm == Algorithm::HS256)
            .peekable();
        unnamed.peek()?;
        Some(unnamed.any(|key| key.signed(token)))
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.configured.iter().chain(self.fetched.iter())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("configured", &self.configured.len())
            .field("fetched", &self.fetched.len())
            .finish_non_exhaustive()
    }
}

/// An entry that claims to be a key and is none.
struct BadKey;

impl Key {
    /// `None` for a key that is none for signatures, or of a kind that is not supported.
    fn read(entry: serde_json::Value) -> Result<Option<Self>, BadKey> {
        let kind = entry.get("kty").and_then(serde_json::Value::as_str).ok_or(BadKey)?;
        let known = matches!(kind, "EC" | "OKP" | "RSA" | "oct");
        let jwk: Jwk = serde_json::from_value(entry).map_err(|_| BadKey)?;
        // What lacks its own type's fields is read as a key of some other type.
        if known && matches!(jwk.algorithm, AlgorithmParameters::Other(_)) {
            return Err(BadKey);
        }
        let Some(algorithm) = algorithm_of(&jwk) else {
            return Ok(None);
        };
        let material = DecodingKey::from_jwk(&jwk).map_err(|_| BadKey)?;
        Ok(Some(Self { id: jwk.common.key_id.filter(|id| !id.is_empty()), algorithm, material }))
    }

    fn signed(&self, token: &Parts<'_>) -> bool {
        (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.material)
            .is_ok_and(|verifier| verifier.verify(token.signed, &token.signature).is_ok())
    }
}

/// What a key verifies: its own `alg` where it fits its type, else what the type is used for.
/// The list is what GoTrue signs with (`internal/conf/jwk.go:GetSigningAlg`) as far as it is
/// supported here: not ES512.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::OctetKey(_), None | Some(KeyAlgorithm::HS256)) => Some(Algorithm::HS256),
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Some(Algorithm::RS256),
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS512)) => Some(Algorithm::RS512),
        (AlgorithmParameters::EllipticCurve(key), None | Some(KeyAlgorithm::ES256))
            if key.curve == EllipticCurve::P256 =>
        {
            Some(Algorithm::ES256)
        }
        (AlgorithmParameters::OctetKeyPair(key), None | Some(KeyAlgorithm::EdDSA))
            if key.curve == EllipticCurve::Ed25519 =>
        {
            Some(Algorithm::EdDSA)
        }
        _ => None,
    }
}

fn array(json: &[u8]) -> Result<Vec<serde_json::Value>, KeyError> {
    serde_json::from_slice(json).map_err(|_| KeyError::Shape { expected: "a JSON array of JSON Web Keys" })
}

/// A JWT taken apart.
struct Parts<'a> {
    algorithm: Algorithm,
    key_id: Option<String>,
    payload: &'a str,
    /// Header and payload, as they were signed.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Header<'h> {
            #[serde(borrow)]
            alg: Text<'h>,
            #[serde(borrow, default)]
            kid: Text<'h>,
        }
        if token.len() > TOKEN_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let header = BASE64URL.decode(header).ok()?;
        let header: Header<'_> = lenient::read(&header).ok()?;
        Some(Self {
            algorithm: allowed(header.alg.0.as_deref()?)?,
            key_id: header.kid.0.map(Cow::into_owned),
            payload,
            signed: signed.as_bytes(),
            signature: BASE64URL.decode(signature).ok()?,
        })
    }
}

/// The algorithms a token may name at all.
fn allowed(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "RS512" => Some(Algorithm::RS512),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

/// The Bearer token of a request, exactly as GoTrue finds it (`internal/api/auth.go`): the first
/// `Authorization` value, matched against `(?i)^bearer (\S+$)`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(BEARER.len())?;
    let token = rest.strip_prefix(b" ")?;
    // to its end whatever it finds, which takes many bytes at a time: this is on the way of every request
    let visible = token.iter().fold(true, |visible, byte| visible & byte.is_ascii_graphic());
    let fits = scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty() && visible;
    if fits { std::str::from_utf8(token).ok() } else { None }
}

const BEARER: &[u8] = b"bearer";

#[cfg(test)]
mod tests;
