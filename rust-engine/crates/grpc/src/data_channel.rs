//! The way of large results beside gRPC, on a Unix socket of its own. HTTP/2 cuts a result into frames of 16 KiB, each of
//! which costs both ends system calls, copies and bookkeeping; here the bytes alone pass, as many at once as the socket takes.
//!
//! A result offers it by a ticket once it has proved large, and goes on by gRPC until somebody has claimed the ticket: who
//! does not know of it needs not. What began, what failed and what ended is said by gRPC in either case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tonic::Status;

use crate::proto::execute_response::Part;
use crate::proto::{DataChannelOffer, DataChannelStart, ExecuteResponse};

/// What names an offer.
const TICKET: usize = 16;
/// How long a connection may take to say its ticket.
const CLAIM: Duration = Duration::from_secs(1);
/// How many bytes of a result go by gRPC before it is offered to go on by a channel.
const LARGE: usize = 512 << 10;
/// How many connections may be about to say theirs. Others wait to be accepted.
const CLAIMING: usize = 64;

type Ticket = [u8; TICKET];

/// The offers of results under way: at most one for each.
#[derive(Clone, Default)]
pub struct DataChannels {
    offers: Arc<Mutex<HashMap<Ticket, oneshot::Sender<UnixStream>>>>,
}

/// A result's own offer, withdrawn when it is dropped.
struct Offer {
    channels: DataChannels,
    ticket: Ticket,
    claimed: oneshot::Receiver<UnixStream>,
}

impl DataChannels {
    /// Hands `incoming` connections over to the results whose tickets they say, to its end.
    pub async fn serve<C>(self, incoming: impl Stream<Item = Result<UnixStream, C>>) {
        let claiming = Arc::new(Semaphore::new(CLAIMING));
        let mut incoming = std::pin::pin!(incoming);
        while let Ok(turn) = Arc::clone(&claiming).acquire_owned().await {
            let Some(Ok(mut connection)) = incoming.next().await else { return };
            let channels = self.clone();
            tokio::spawn(async move {
                let mut ticket = [0; TICKET];
                if let Ok(Ok(_)) = tokio::time::timeout(CLAIM, connection.read_exact(&mut ticket)).await
                    && let Some(offer) = channels.take(&ticket)
                {
                    // If its result has ended since, the connection does too.
                    let _ = offer.send(connection);
                }
                drop(turn);
            });
        }
    }

    fn offer(&self) -> Offer {
        let ticket = rand::random();
        let (sender, claimed) = oneshot::channel();
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, sender);
        Offer { channels: self.clone(), ticket, claimed }
    }

    fn take(&self, ticket: &Ticket) -> Option<oneshot::Sender<UnixStream>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).remove(ticket)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.channels.take(&self.ticket);
    }
}

/// A result's parts on their way, some of them beside gRPC.
struct Detour<S> {
    parts: S,
    /// How many bytes went by gRPC.
    sent: usize,
    channels: DataChannels,
    offered: bool,
    offer: Option<Offer>,
    connection: Option<UnixStream>,
}

/// The parts of a result, of which the chunks of a large one leave by a data channel if its reader claims it.
pub(crate) fn detour<S>(parts: S, channels: DataChannels) -> impl Stream<Item = Result<ExecuteResponse, Status>>
where
    S: Stream<Item = Result<ExecuteResponse, Status>> + Unpin,
{
    let detour = Detour { parts, sent: 0, channels, offered: false, offer: None, connection: None };
    stream::unfold(detour, |mut detour| async move {
        let part = detour.next().await?;
        Some((part, detour))
    })
}

impl<S> Detour<S>
where
    S: Stream<Item = Result<ExecuteResponse, Status>> + Unpin,
{
    async fn next(&mut self) -> Option<Result<ExecuteResponse, Status>> {
        if let Some(connection) = self.connection.take() {
            return self.pass(connection).await;
        }
        if self.sent >= LARGE && !self.offered {
            self.offered = true;
            let offer = self.offer.insert(self.channels.offer());
            return Some(Ok(message(Part::Offer(DataChannelOffer { ticket: offer.ticket.to_vec() }))));
        }
        if let Some(offer) = &mut self.offer
            && let Ok(connection) = offer.claimed.try_recv()
        {
            self.offer = None;
            self.connection = Some(connection);
            return Some(Ok(message(Part::Start(DataChannelStart {}))));
        }
        let part = self.parts.next().await?;
        if let Ok(ExecuteResponse { part: Some(Part::Chunk(bytes)) }) = &part {
            self.sent += bytes.len();
        } else {
            // The result has ended: nothing may come after this.
            self.offer = None;
        }
        Some(part)
    }

    /// Writes chunks to the connection up to the part that is none, which is for gRPC. It ends the connection.
    async fn pass(&mut self, mut connection: UnixStream) -> Option<Result<ExecuteResponse, Status>> {
        loop {
            match self.parts.next().await? {
                Ok(ExecuteResponse { part: Some(Part::Chunk(bytes)) }) => {
                    if let Err(error) = connection.write_all(&bytes).await {
                        return Some(Err(Status::unavailable(format!("the data channel broke: {error}"))));
                    }
                }
                other => return Some(other),
            }
        }
    }
}

fn message(part: Part) -> ExecuteResponse {
    ExecuteResponse { part: Some(part) }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Instant;

    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::proto::Receipt;

    /// Connects and writes what names an offer; returns the far end.
    async fn knock(door: &mpsc::UnboundedSender<io::Result<UnixStream>>, ticket: &[u8]) -> UnixStream {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        near.write_all(ticket).await.expect("the ticket leaves");
        door.send(Ok(far)).expect("somebody listens");
        near
    }

    async fn whole(mut connection: UnixStream) -> Vec<u8> {
        let mut all = Vec::new();
        connection.read_to_end(&mut all).await.expect("it ends well");
        all
    }

    #[tokio::test]
    async fn only_a_ticket_opens() {
        let (door, incoming) = mpsc::unbounded_channel();
        let channels = DataChannels::default();
        tokio::spawn(channels.clone().serve(UnboundedReceiverStream::new(incoming)));
        let mut offer = channels.offer();
        let withdrawn = channels.offer().ticket;
        // As many as may be about to say a ticket: they are given up in time for the one behind them.
        let silent: Vec<_> = (0..CLAIMING).map(|_| UnixStream::pair().expect("a pair")).collect();
        let begun = Instant::now();
        let silent: Vec<_> = silent.into_iter().map(|(near, far)| door.send(Ok(far)).map(|()| near)).collect();
        assert_eq!(whole(knock(&door, &withdrawn).await).await, b"");
        assert!(begun.elapsed() >= CLAIM, "{:?}", begun.elapsed());
        drop(silent);

        assert_eq!(whole(knock(&door, &[0; TICKET]).await).await, b"");
        let claimant = knock(&door, &offer.ticket).await;
        let mut connection = (&mut offer.claimed).await.expect("claimed");
        assert_eq!(whole(knock(&door, &offer.ticket).await).await, b"", "a ticket is good once");
        connection.write_all(b"rows").await.expect("somebody reads");
        drop(connection);
        assert_eq!(whole(claimant).await, b"rows");
        assert!(channels.offers.lock().expect("unharmed").is_empty());
    }

    #[tokio::test]
    async fn nothing_follows_the_end_of_a_result() {
        let (door, incoming) = mpsc::unbounded_channel();
        let channels = DataChannels::default();
        tokio::spawn(channels.clone().serve(UnboundedReceiverStream::new(incoming)));
        let chunk = Ok(message(Part::Chunk(vec![0; LARGE].into())));
        let parts = [chunk, Ok(message(Part::Trailer(Receipt::default())))];
        let mut parts = Box::pin(detour(stream::iter(parts), channels));
        let mut next = async || parts.next().await.and_then(Result::ok).and_then(|response| response.part);
        assert!(matches!(next().await, Some(Part::Chunk(_))));
        let Some(Part::Offer(offer)) = next().await else { panic!("no offer") };
        assert!(matches!(next().await, Some(Part::Trailer(_))));
        let late = knock(&door, &offer.ticket).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(next().await, None);
        assert_eq!(whole(late).await, b"");
    }

    #[tokio::test]
    async fn chunks_go_where_they_are_claimed() {
        let (door, incoming) = mpsc::unbounded_channel();
        let channels = DataChannels::default();
        tokio::spawn(channels.clone().serve(UnboundedReceiverStream::new(incoming)));
        let chunk = |byte: u8| Ok(message(Part::Chunk(vec![byte; LARGE / 2].into())));
        let parts = (0..6).map(chunk).chain([Err(Status::cancelled("in between")), chunk(9)]);
        let mut parts = Box::pin(detour(stream::iter(parts), channels));
        let mut claimant = None;
        let mut seen = Vec::new();
        while let Some(part) = parts.next().await {
            match part.map(|response| response.part) {
                Ok(Some(Part::Chunk(bytes))) => seen.push(format!("{}", bytes[0])),
                Ok(Some(Part::Offer(offer))) => {
                    seen.push("offer".to_owned());
                    let near = knock(&door, &offer.ticket).await;
                    claimant = Some(tokio::spawn(whole(near)));
                    // Until the connection was handed over.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(Some(Part::Start(_))) => seen.push("start".to_owned()),
                Err(status) => seen.push(status.message().to_owned()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, ["0", "1", "offer", "start", "in between", "9"]);
        let beside = claimant.expect("an offer").await.expect("no panic");
        let expected: Vec<u8> = (2..6).flat_map(|byte| vec![byte; LARGE / 2]).collect();
        assert!(beside == expected, "{} bytes", beside.len());
    }
}
