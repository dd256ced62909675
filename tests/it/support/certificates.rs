//! Certificates made on the spot.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Writes `cert.pem` and `key.pem` for `127.0.0.1` into the folder, and `ca.pem`, the CA of their own
/// that made them; and `client.pem` and `client-key.pem` of somebody whom the same CA knows.
pub(crate) fn make(folder: &Path) {
    make_for("127.0.0.1", folder);
}

/// As [`make`], for a server of another name.
pub(crate) fn make_for(name: &str, folder: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "a CA for tests");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    fs::write(folder.join("ca.pem"), ca_certificate.pem()).unwrap();
    write(folder, ["cert.pem", "key.pem"], &issued(name, &issuer));
    write(folder, ["client.pem", "client-key.pem"], &issued("gotrue-sidecar", &issuer));
}

fn issued(name: &str, issuer: &Issuer<'_, KeyPair>) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
    // OpenSSL takes one that is called like its CA for the CA itself
    leaf.distinguished_name.push(DnType::CommonName, name);
    (leaf.signed_by(&key, issuer).unwrap(), key)
}

fn write(folder: &Path, [certificate, key]: [&str; 2], made: &(Certificate, KeyPair)) {
    fs::write(folder.join(certificate), made.0.pem()).unwrap();
    fs::write(folder.join(key), made.1.serialize_pem()).unwrap();
}
