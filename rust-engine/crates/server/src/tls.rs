//! TLS between edge and engine: whoever connects must show a certificate of the right authority and with the right name.
//! The files are read again while the engine runs. What is served over it is no business of this module.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, CertificateError, RootCertStore, ServerConfig};
use tokio_stream::wrappers::ReceiverStream;

use crate::listen::ACCEPT_PAUSE;

mod connection;
mod peer;

pub(crate) use connection::Connection;
use peer::NameChecked;
pub(crate) use peer::PeerName;

/// How often the files are looked at. What has changed is taken when it has stayed the same for one look, so that no
/// certificate is paired with the key of another.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// How long a handshake may take, and how many there may be at once; who comes later waits in the system's backlog.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
const MAX_HANDSHAKES: usize = 256;

/// How many connections may wait to be taken by the server after their handshake.
const MAX_WAITING: usize = 16;

/// What the listener shows, and what it asks of who connects.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: PathBuf,
    pub(crate) client_name: PeerName,
}

/// What is in the files.
#[derive(PartialEq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// The TLS configuration that is in force; handshakes take the newest.
pub(crate) struct Tls {
    files: Files,
    /// What was last read that differs from what is in force, or why it could not be.
    seen: Result<Contents, String>,
    current: watch::Sender<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files for the first time.
    pub(crate) fn open(files: Files) -> Result<Self> {
        let contents = read(&files).map_err(anyhow::Error::msg)?;
        let config = configure(&contents, &files)?;
        Ok(Self { files, seen: Ok(contents), current: watch::Sender::new(Arc::new(config)) })
    }

    /// Accepts connections and shakes hands with them, until the stream is dropped. Who fails is logged and forgotten.
    pub(crate) fn accept_on(self, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (secured, incoming) = mpsc::channel(MAX_WAITING);
        let current = self.current.subscribe();
        let following = tokio::spawn(self.follow());
        tokio::spawn(async move {
            accept(&listener, &current, &secured).await;
            following.abort();
        });
        ReceiverStream::new(incoming)
    }

    /// Looks at the files from time to time. What can't be used leaves in force what was.
    async fn follow(mut self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut decided = true;
        loop {
            looks.tick().await;
            let files = self.files.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || read(&files)).await else { continue };
            if found != self.seen {
                (self.seen, decided) = (found, false);
                continue;
            }
            if decided {
                continue;
            }
            decided = true;
            let config = match &self.seen {
                Ok(contents) => configure(contents, &self.files).map_err(|error| format!("{error:#}")),
                Err(error) => Err(error.clone()),
            };
            match config {
                Ok(config) => {
                    self.current.send_replace(Arc::new(config));
                    tracing::info!(cert = %self.files.cert.display(), "certificates changed");
                }
                Err(error) => tracing::error!(error, "certificates are wrong; those from before stay in force"),
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    current: &watch::Receiver<Arc<ServerConfig>>,
    secured: &mpsc::Sender<io::Result<Connection>>,
) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = secured.closed() => return,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // As in `listen::patient`.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&current.borrow()));
        let secured = secured.clone();
        tokio::spawn(async move {
            if let Some(connection) = shake_hands(acceptor, socket, peer).await {
                let _ = secured.send(Ok(connection)).await;
            }
            drop(slot);
        });
    }
}

async fn shake_hands(acceptor: TlsAcceptor, socket: TcpStream, peer: SocketAddr) -> Option<Connection> {
    // The end of an answer would wait for the edge to acknowledge what came before it, which takes 40 ms.
    let _ = socket.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => Some(Connection(stream)),
        // Who only looks whether the port is open, as probes do, is no news.
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            tracing::debug!(%peer, "connection closed in its TLS handshake");
            None
        }
        Ok(Err(error)) => {
            tracing::warn!(%peer, reason = reason(&error), "connection refused");
            None
        }
        Err(_) => {
            tracing::warn!(%peer, reason = "the TLS handshake took too long", "connection refused");
            None
        }
    }
}

/// Says why a handshake failed. A name that is missing would come out in Rust's notation.
fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => other.to_string(),
        // The second is for an authority that has the same name and another key.
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "the client's certificate is not signed by an authority in `--tls-client-ca`".to_owned()
        }
        Some(rustls::Error::NoCertificatesPresented) => "the client showed no certificate".to_owned(),
        Some(rustls::Error::InvalidMessage(_)) => "the client does not speak TLS".to_owned(),
        _ => error.to_string(),
    }
}

fn read(files: &Files) -> Result<Contents, String> {
    Ok(Contents { cert: read_file(&files.cert)?, key: read_file(&files.key)?, client_ca: read_file(&files.client_ca)? })
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    match read {
        Ok(size) if size as u64 > MAX_FILE => Err(format!("{} is over 1 MiB", path.display())),
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("can't read {}: {error}", path.display())),
    }
}

/// Makes the configuration of one set of files: TLS 1.2 or 1.3, HTTP/2, a client's certificate required.
fn configure(contents: &Contents, files: &Files) -> Result<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut authorities = RootCertStore::empty();
    for authority in certificates(&contents.client_ca, &files.client_ca)? {
        authorities
            .add(authority)
            .with_context(|| format!("{} holds a certificate that can't be used", files.client_ca.display()))?;
    }
    let chained = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider)).build()?;
    let verifier = NameChecked { chained, name: files.client_name.clone() };
    let chain = certificates(&contents.cert, &files.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .with_context(|| format!("{} holds no private key in PEM", files.key.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .with_context(|| format!("{} and {} are no pair", files.cert.display(), files.key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is resumed would not be asked for its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.with_context(|| format!("{} is no PEM", path.display()))?;
    if found.is_empty() {
        bail!("{} holds no certificate in PEM", path.display());
    }
    Ok(found)
}
