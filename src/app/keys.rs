//! Keys from the configuration: those that verify tokens, and the one that makes references.

use std::sync::Arc;

use http::{HeaderValue, Uri};

use crate::{
    config::{self, FileError, Jwks, SecretSource, UpstreamUrl},
    jwks::Endpoint,
    keys::{KeyError, KeyRing},
    reload::{Purpose, Watched},
    token::RefKey,
    upstream::{Connector, TlsError, Upstream},
    wire::pace::CoarseClock,
};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("a secret cannot be read")]
    Secret(#[from] FileError),
    /// `jwt.keys` is not what it should be.
    #[error("jwt.keys")]
    Keys(#[from] KeyError),
    /// `jwt.jwks` is no address that can be asked.
    #[error("jwt.jwks: expected an http:// or https:// address")]
    Jwks,
    /// No TLS to where published keys are.
    #[error("jwt.jwks: no TLS")]
    Tls(#[from] TlsError),
}

/// What `jwt.secret` and `jwt.keys` hold at the moment.
#[derive(Debug)]
pub(super) struct Configured {
    pub(super) ring: KeyRing,
    secret: Option<config::Secret>,
}

impl Configured {
    /// Reads them, and watches the files they come from.
    pub(super) fn read(jwt: &config::Jwt, watched: &mut Watched) -> Result<Self, Error> {
        for source in [&jwt.secret, &jwt.keys].into_iter().flatten() {
            watched.watch_secret(Purpose::Keys, source);
        }
        Self::read_again(jwt)
    }

    /// Reads them.
    pub(super) fn read_again(jwt: &config::Jwt) -> Result<Self, Error> {
        let secret = jwt.secret.as_ref().map(SecretSource::read).transpose()?;
        let keys = jwt.keys.as_ref().map(SecretSource::read).transpose()?;
        let bytes = |secret: &config::Secret| secret.reveal().as_bytes().to_vec();
        let ring = KeyRing::new(secret.as_ref().map(bytes).as_deref(), keys.as_ref().map(bytes).as_deref())?;
        if ring.skipped() > 0 {
            tracing::warn!(keys = ring.skipped(), "keys in jwt.keys are of kinds that cannot be used here");
        }
        Ok(Self { ring, secret })
    }
}

/// The key that refresh references are made with: configured, else derived from the JWT secret. A secret
/// that is exchanged makes another one, so that every replica has the same, restarted or not.
pub(super) fn reference_key(
    configured: Option<&SecretSource>,
    keys: &Configured,
) -> Result<Option<RefKey>, Error> {
    if let Some(source) = configured {
        return Ok(Some(RefKey::new(source.read()?.reveal().as_bytes())));
    }
    let derived = keys.secret.as_ref().map(|secret| RefKey::derived(secret.reveal().as_bytes()));
    if derived.is_none() {
        tracing::warn!("neither store.ref_key nor jwt.secret is set: refresh tokens are not indexed");
    }
    Ok(derived)
}

/// Where published keys are fetched from, if anywhere.
pub(super) fn endpoint(
    jwks: &Jwks,
    upstream: &config::Upstream,
    connector: &Arc<Connector>,
    host: &HeaderValue,
    clock: &Arc<CoarseClock>,
) -> Result<Option<Endpoint>, Error> {
    match jwks {
        Jwks::Off => Ok(None),
        Jwks::Upstream => Ok(Some(Endpoint {
            upstream: Upstream::new(Arc::clone(connector), upstream, 1, Arc::clone(clock)),
            target: Uri::try_from(format!("{}/.well-known/jwks.json", upstream.url.path))
                .map_err(|_| Error::Jwks)?,
            host: host.clone(),
        })),
        Jwks::Url(uri) => {
            let url = address(uri).ok_or(Error::Jwks)?;
            let connector = Connector::new(&url, None, upstream.connect_timeout)?;
            Ok(Some(Endpoint {
                upstream: Upstream::new(Arc::new(connector), upstream, 1, Arc::clone(clock)),
                target: uri.path_and_query().cloned().map_or(Uri::from_static("/"), Uri::from),
                host: HeaderValue::from_str(url.authority.as_str()).map_err(|_| Error::Jwks)?,
            }))
        }
    }
}

fn address(uri: &Uri) -> Option<UpstreamUrl> {
    let tls = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Some(UpstreamUrl { tls, authority, host, port, path: String::new() })
}
