//! Issues tokens as GoTrue does, or as somebody would who wants to be taken for it.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use gotrue_sidecar::session::{Seconds, SessionId, UserId};
use serde_json::{Value, json};

use super::upstream::answer;

/// The shared secret of sidecars and signers here.
pub(crate) const SECRET: &str = "tests-only-jwt-secret-with-at-least-32-characters";

/// Who signs, and with what.
pub(crate) struct Signer {
    algorithm: &'static str,
    kid: Option<String>,
    key: Key,
}

enum Key {
    Shared(Vec<u8>),
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// The one whose secret the sidecar knows.
    pub(crate) fn trusted() -> Self {
        Self::hs256(SECRET.as_bytes())
    }

    pub(crate) fn hs256(secret: &[u8]) -> Self {
        Self { algorithm: "HS256", kid: None, key: Key::Shared(secret.to_vec()) }
    }

    pub(crate) fn es256(kid: &str) -> Self {
        let key = Key::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
        Self { algorithm: "ES256", kid: Some(kid.to_owned()), key }
    }

    pub(crate) fn rs256(kid: &str) -> Self {
        let key = Key::Rsa(RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap());
        Self { algorithm: "RS256", kid: Some(kid.to_owned()), key }
    }

    pub(crate) fn eddsa(kid: &str) -> Self {
        let key = Key::Ed(Ed25519KeyPair::generate().unwrap());
        Self { algorithm: "EdDSA", kid: Some(kid.to_owned()), key }
    }

    /// What GoTrue publishes of these signers' keys.
    pub(crate) fn jwks(signers: &[&Self]) -> String {
        json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
    }

    fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Shared(_) => panic!("a secret is not published"),
            Key::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Key::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
            Key::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        };
        jwk["alg"] = self.algorithm.into();
        jwk["kid"] = self.kid.clone().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// The bytes of the public key, as somebody would have them who takes it for a secret.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        match &self.key {
            Key::Shared(_) => panic!("there is no public key"),
            Key::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Key::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Key::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let mut header = json!({"alg": self.algorithm, "typ": "JWT"});
        if let Some(kid) = &self.kid {
            header["kid"] = kid.clone().into();
        }
        self.sign_under(&header, claims)
    }

    /// A token under a header that need not be true.
    pub(crate) fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let signed =
            format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()));
        let message = signed.as_bytes();
        let signature = match &self.key {
            Key::Shared(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
            }
            Key::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Key::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        };
        format!("{signed}.{}", text(&signature))
    }
}

fn text(bytes: &[u8]) -> String {
    BASE64URL.encode(bytes)
}

/// A session of GoTrue's, with what its newest tokens say.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    /// How often it was refreshed.
    pub(crate) counter: u64,
    pub(crate) began: Seconds,
    pub(crate) issued: Seconds,
    pub(crate) expires: Seconds,
    pub(crate) aal: &'static str,
}

impl Login {
    /// A new user's first, at that time, for an hour.
    pub(crate) fn new(now: Seconds) -> Self {
        Self::of(UserId::parse(&some_uuid()).unwrap(), now)
    }

    /// A further one.
    pub(crate) fn of(user: UserId, now: Seconds) -> Self {
        let session = SessionId::parse(&some_uuid()).unwrap();
        Self { user, session, counter: 0, began: now, issued: now, expires: now + 3600, aal: "aal1" }
    }

    /// After a refresh.
    pub(crate) fn refreshed(&self, now: Seconds) -> Self {
        Self { counter: self.counter + 1, issued: now, expires: now + 3600, ..self.clone() }
    }

    pub(crate) fn claims(&self) -> Value {
        json!({
            "sub": self.user.to_string(),
            "session_id": self.session.to_string(),
            "aud": "authenticated",
            "role": "authenticated",
            "iat": self.issued,
            "exp": self.expires,
            "aal": self.aal,
            "amr": [{"method": "password", "timestamp": self.began}],
            "is_anonymous": false,
        })
    }

    /// The access token.
    pub(crate) fn access(&self, signer: &Signer) -> String {
        signer.sign(&self.claims())
    }

    /// The refresh token, of the second version (`crypto/refresh_tokens.go`).
    pub(crate) fn refresh(&self) -> String {
        assert!(self.counter < 128, "one byte of counter");
        let id = u128::from_str_radix(&self.session.to_string().replace('-', ""), 16).unwrap();
        let mut bytes = vec![0];
        bytes.extend(id.to_be_bytes());
        bytes.push(u8::try_from(self.counter).unwrap());
        bytes.extend([7; 16]);
        let hash = digest::digest(&digest::SHA256, &bytes);
        bytes.extend(&hash.as_ref()[..4]);
        text(&bytes)
    }

    /// The JSON that hands the tokens out.
    pub(crate) fn body(&self, signer: &Signer) -> String {
        json!({
            "access_token": self.access(signer),
            "token_type": "bearer",
            "expires_in": 3600,
            "expires_at": self.expires,
            "refresh_token": self.refresh(),
            "user": {"id": self.user.to_string(), "aud": "authenticated"},
        })
        .to_string()
    }

    /// The answer that hands the tokens out.
    pub(crate) fn answer(&self, signer: &Signer) -> Vec<u8> {
        let (user, session) = (self.user.to_string(), self.session.to_string());
        let headers = [
            ("Content-Type", "application/json"),
            ("Sb-Auth-Session-Id", session.as_str()),
            ("Sb-Auth-User-Id", user.as_str()),
        ];
        answer("200 OK", &headers, &self.body(signer))
    }
}

fn some_uuid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("5e551040-0000-4000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed))
}
