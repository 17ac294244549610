//! Where the engine listens: a Unix socket, or TCP.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// How long nobody is accepted after one could not be.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener. Dropping it removes the socket file, and its folder if that is empty then.
pub(crate) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener),
}

/// A socket file that goes when its owner goes.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl SocketFile {
    /// Removes the socket's folder too, if nothing else is in it.
    pub(crate) fn remove_folder(&self) {
        let _ = std::fs::remove_file(&self.0);
        if let Some(folder) = self.0.parent() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Binds `unix:///path` or `tcp://host:port`; says what it bound. `trusted` says that who connects over TCP must prove
/// who it is, or that the operator knows better; without it only this machine's own processes may connect.
pub(crate) async fn bind(address: &str, trusted: bool) -> Result<(Listener, String)> {
    if let Some(path) = address.strip_prefix("unix://") {
        let path = Path::new(path);
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).with_context(|| format!("can't listen on {address}"))?;
        return Ok((Listener::Unix(listener, SocketFile(path.to_owned())), address.to_owned()));
    }
    let Some(host) = address.strip_prefix("tcp://") else {
        bail!("`--listen {address}` must be unix:///path or tcp://host:port");
    };
    let listener = TcpListener::bind(host).await.with_context(|| format!("can't listen on {address}"))?;
    let bound = listener.local_addr()?;
    if !trusted && !bound.ip().is_loopback() {
        bail!(
            "`--listen {address}` would let anyone on the network read all data: use TLS (`--tls-cert`, `--tls-key`, \
             `--tls-client-ca`, `--tls-client-name`), listen on tcp://127.0.0.1, or say `--plain-tcp` (QUERN_PLAIN_TCP=true) \
             where the network itself keeps others out"
        );
    }
    Ok((Listener::Tcp(listener), format!("tcp://{bound}")))
}

/// Leaves out connections that could not be accepted, such as for want of file handles: that passes, tonic would stop
/// serving, and trying again at once would only burn time.
pub(crate) fn patient<C>(incoming: impl Stream<Item = io::Result<C>>) -> impl Stream<Item = io::Result<C>> {
    incoming.filter_map(|accepted| async move {
        if let Err(error) = &accepted {
            tracing::warn!(%error, "can't accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted.ok().map(Ok)
    })
}

/// A socket file that nobody answers on is left from a process that was killed.
async fn remove_stale(path: &Path) -> Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        bail!("{} exists and is no socket", path.display());
    }
    if UnixStream::connect(path).await.is_ok() {
        bail!("another engine listens on {}", path.display());
    }
    std::fs::remove_file(path).with_context(|| format!("can't remove the stale socket {}", path.display()))
}
