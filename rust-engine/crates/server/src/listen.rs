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

/// What the path of the data channels' socket has after that of the engine's.
const DATA: &str = ".data";

/// A bound listener. Dropping it removes the socket files, and their folder if that is empty then.
pub(crate) enum Listener {
    /// `data` is the one beside it, for large results.
    Unix {
        grpc: UnixListener,
        data: UnixListener,
        files: SocketFiles,
    },
    Tcp(TcpListener),
}

/// Socket files that go when their owner goes.
pub(crate) struct SocketFiles([PathBuf; 2]);

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for file in &self.0 {
            let _ = std::fs::remove_file(file);
        }
    }
}

impl SocketFiles {
    /// Removes the sockets' folder too, if nothing else is in it.
    pub(crate) fn remove_folder(self) {
        let folder = self.0[0].parent().map(Path::to_owned);
        drop(self);
        if let Some(folder) = folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Binds `unix:///path` or `tcp://host:port`; says what it bound. `trusted` says that who connects over TCP must prove
/// who it is, or that the operator knows better; without it only this machine's own processes may connect.
pub(crate) async fn bind(address: &str, trusted: bool) -> Result<(Listener, String)> {
    if let Some(path) = address.strip_prefix("unix://") {
        let data = PathBuf::from(format!("{path}{DATA}"));
        let path = PathBuf::from(path);
        for path in [&path, &data] {
            remove_stale(path).await?;
        }
        let listen =
            |path: &Path| UnixListener::bind(path).with_context(|| format!("can't listen on {}", path.display()));
        // Who finds the engine's socket finds the other one too.
        let (listening, grpc) = (listen(&data)?, listen(&path)?);
        let files = SocketFiles([path, data]);
        return Ok((Listener::Unix { grpc, data: listening, files }, address.to_owned()));
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
