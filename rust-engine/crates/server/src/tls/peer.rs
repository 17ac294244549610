//! Who may connect: a certificate that chains to the authority and bears the name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::EndEntityCert;

/// A name in a certificate's subjectAltName: of DNS (or an IP address), or a URI such as a SPIFFE id.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PeerName {
    Host(ServerName<'static>),
    Uri(String),
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Ok(Self::Uri(text.to_owned()));
        }
        match ServerName::try_from(text) {
            Ok(name) => Ok(Self::Host(name.to_owned())),
            Err(_) => {
                Err("write a DNS name such as edge.quern.svc, or a URI such as spiffe://example.org/edge".to_owned())
            }
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(&name.to_str()),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

impl PeerName {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let certificate = EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let borne = match self {
            Self::Host(name) => certificate.verify_is_valid_for_subject_name(name).is_ok(),
            Self::Uri(uri) => certificate.valid_uri_names().any(|found| found == uri),
        };
        if borne {
            return Ok(());
        }
        let found: Vec<_> = certificate.valid_dns_names().chain(certificate.valid_uri_names()).collect();
        let found = if found.is_empty() { "no DNS name and no URI".to_owned() } else { found.join(", ") };
        let refusal = NoSuchName { wanted: self.to_string(), found };
        Err(CertificateError::Other(OtherError(Arc::new(refusal))).into())
    }
}

/// A certificate that is for somebody else.
#[derive(Debug)]
struct NoSuchName {
    wanted: String,
    found: String,
}

impl fmt::Display for NoSuchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client's certificate is not for `{}`; it is for {}", self.wanted, self.found)
    }
}

impl std::error::Error for NoSuchName {}

/// Lets rustls check the chain, and then checks the name, which servers are not usually asked to.
#[derive(Debug)]
pub(super) struct NameChecked {
    pub(super) chained: Arc<dyn ClientCertVerifier>,
    pub(super) name: PeerName,
}

impl ClientCertVerifier for NameChecked {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chained.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chained.verify_client_cert(end_entity, intermediates, now)?;
        self.name.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chained.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chained.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chained.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    use super::*;

    /// For `DNS:edge.quern` and `URI:spiffe://example.org/edge`, with the common name `unused`.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBrTCCAVOgAwIBAgIUDTJYXbFuLzSMHEaAtCzdWXDq4KUwCgYIKoZIzj0EAwIw\n\
ETEPMA0GA1UEAwwGdW51c2VkMCAXDTI2MTEyNTE4MzAwOFoYDzIxMjYxMTAxMTgz\n\
MDA4WjARMQ8wDQYDVQQDDAZ1bnVzZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\n\
AATFNInODid3XSYsjB3nf0JLPwoiFVDElNkxr7VCrv33AJ66xSLV38BgR/8zZVbG\n\
tbvYXvpG68Zi9G1HQFICz+K5o4GGMIGDMB0GA1UdDgQWBBQDM/zhsBOForpngRII\n\
lT7wfi3C4DAfBgNVHSMEGDAWgBQDM/zhsBOForpngRIIlT7wfi3C4DAPBgNVHRMB\n\
Af8EBTADAQH/MDAGA1UdEQQpMCeCCmVkZ2UucXVlcm6GGXNwaWZmZTovL2V4YW1w\n\
bGUub3JnL2VkZ2UwCgYIKoZIzj0EAwIDSAAwRQIgIKCJDGn2Pxo34/1Ebq8a11I/\n\
EcNLJs+RkmxjSohWtCYCIQDiFsVK/HMrSnxZ7tWHtApmYWOPhXEP43QD3Jnu6LV2\n\
DQ==\n\
-----END CERTIFICATE-----";

    #[test]
    fn names_are_those_of_the_certificate() {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("the certificate");
        let check = |name: &str| name.parse::<PeerName>().expect(name).check(&certificate);
        for right in ["edge.quern", "EDGE.quern", "spiffe://example.org/edge"] {
            assert!(check(right).is_ok(), "{right}");
        }
        for wrong in
            ["unused", "quern", "other.quern", "spiffe://example.org", "spiffe://example.org/edge/", "127.0.0.1"]
        {
            let Err(Error::InvalidCertificate(CertificateError::Other(refusal))) = check(wrong) else {
                panic!("{wrong} was taken");
            };
            let says = format!(
                "the client's certificate is not for `{wrong}`; it is for edge.quern, spiffe://example.org/edge"
            );
            assert_eq!(refusal.to_string(), says);
        }
    }

    #[test]
    fn names_that_no_certificate_can_have_are_refused() {
        for wrong in ["", "two words", "*"] {
            let error = wrong.parse::<PeerName>().expect_err(wrong);
            assert!(error.contains("DNS name"), "{error}");
        }
    }
}
