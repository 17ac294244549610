//! Watching the sources: a picture of every table's snapshot, and what changes in it.
//!
//! A thread of its own lists all tables whenever inotify reports anything below a source folder, and passes on the
//! difference. Nothing of it runs on the threads of queries, so that a busy engine still tells in time.
//!
//! The bound: a change to a local file is told 100 ms after it was made at the latest, unless listing all tables takes
//! longer; then [`Event::Behind`] is told instead, within 50 ms, and what is known holds nothing until the next event.
//! Buckets are listed as [`crate::bucket`] says; what changed in them is told at once when that is known.
//! What inotify can't see is polled at [`POLL`]: symbolic links (their targets lie elsewhere), hard links (written
//! under another name), and file systems on which others than this machine write. What makes no event even on a
//! watched file system, above all writes through a memory map, is found by the listing every [`SAFETY`].
//! What is mounted over a source folder, or unmounted, is noticed within [`TURN`] ([`mounts`]), and watched anew.
//! Nobody can notice a change that leaves size, inode and both times of a file as they were: programs can't make one,
//! a clock that is set back between two writes to the same file can.

mod lister;
mod mounts;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, INotifyWatcher, RecursiveMode, Watcher as _};
use quern_core::TableSnapshot;
use tokio::sync::broadcast;
use tokio_util::task::AbortOnDropHandle;

use crate::listing::settle::TICK;
use crate::listing::{FileSystems, Root};
use lister::{Lister, Tables};
use mounts::Mounts;

/// How often what inotify can't see is listed, where a listing is quick.
pub const POLL: Duration = Duration::from_millis(50);
/// How often everything is listed in any case, where a listing is quick.
pub const SAFETY: Duration = Duration::from_secs(1);

/// A change is listed again and again for this long: what follows it at once may come before its folder is watched.
const ALERT: Duration = Duration::from_millis(100);
/// How often that is.
const ALERT_POLL: Duration = Duration::from_millis(20);
/// A listing that takes longer is announced.
const PATIENCE: Duration = Duration::from_millis(30);
/// How long the thread sleeps at most, and so how often it says that it is well.
const TURN: Duration = Duration::from_millis(100);
/// How old that word may be.
const WELL: Duration = Duration::from_millis(300);
/// How often watching is tried again while it can't be had, and everything is polled.
const RETRY: Duration = Duration::from_secs(2);
/// The least time between two listings, so that a storm of events leaves the processor to others.
const GAP: Duration = Duration::from_millis(5);
/// How many events a subscriber may be behind; beyond it, it gets a whole picture.
const BACKLOG: usize = 64;

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Some tables have another snapshot, and some are gone.
    Changes {
        /// New tables and those that changed.
        changed: Vec<TableSnapshot>,
        /// The names of those that are gone.
        removed: Vec<String>,
    },
    /// Something changed, and looking at it takes a while.
    Behind,
}

/// Watches the sources until it is dropped.
pub struct Watcher {
    shared: Arc<Shared>,
    _stop: Sender<Signal>,
    _polls: Vec<AbortOnDropHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
}

struct State {
    tables: Option<Tables>,
    behind: bool,
    verified: Instant,
}

/// What wakes the thread.
enum Signal {
    Inotify(notify::Result<notify::Event>),
    Bucket,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No invariant spans a panic: each change of the state is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is known and tells the difference. Subscribers that join meanwhile get it as their picture.
    fn learn(&self, tables: Tables) {
        let mut state = self.state();
        let before = state.tables.replace(tables.clone()).unwrap_or_default();
        let was_behind = std::mem::take(&mut state.behind);
        state.verified = Instant::now();
        let changed: Vec<TableSnapshot> = tables
            .iter()
            .filter(|(name, id)| before.get(*name) != Some(id))
            .map(|(name, id)| TableSnapshot { table: name.clone(), snapshot: id.clone() })
            .collect();
        let removed: Vec<String> = before.into_keys().filter(|name| !tables.contains_key(name)).collect();
        if was_behind || !changed.is_empty() || !removed.is_empty() {
            // Nobody listening is no failure.
            let _ = self.events.send(Event::Changes { changed, removed });
        }
    }

    fn fall_behind(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.behind, true) {
            let _ = self.events.send(Event::Behind);
        }
    }
}

impl Watcher {
    /// Starts to watch. The first picture is there as soon as all tables are listed once.
    pub(crate) fn start(roots: Arc<[Root]>, systems: Arc<FileSystems>, bucket_poll: Duration) -> Self {
        let state = State { tables: None, behind: true, verified: Instant::now() };
        let shared = Arc::new(Shared { state: Mutex::new(state), events: broadcast::channel(BACKLOG).0 });
        let (signals, received) = mpsc::channel();
        let buckets = roots.iter().filter_map(|root| if let Root::Bucket(bucket) = root { Some(bucket) } else { None });
        let polls = buckets.flat_map(|bucket| {
            let (mut changes, signals) = (bucket.changes(), signals.clone());
            let tell = async move { while changes.changed().await.is_ok() && signals.send(Signal::Bucket).is_ok() {} };
            [tokio::spawn(tell), tokio::spawn(Arc::clone(bucket).poll(bucket_poll))].map(AbortOnDropHandle::new)
        });
        let polls = polls.collect();
        let thread = Thread {
            shared: Arc::clone(&shared),
            lister: Lister::start(Arc::clone(&roots), Arc::clone(&systems)),
            mounts: Mounts::of(&roots),
            systems,
            roots,
            inotify: None,
            signals: signals.clone(),
        };
        std::thread::spawn(move || thread.run(&received));
        Self { shared, _stop: signals, _polls: polls }
    }

    /// What is known now, `None` where that is nothing yet or no longer true, and the events from then on.
    pub fn subscribe(&self) -> (Option<BTreeMap<String, String>>, broadcast::Receiver<Event>) {
        let state = self.shared.state();
        let tables = if state.behind { None } else { state.tables.clone() };
        (tables, self.shared.events.subscribe())
    }

    /// Whether the last event still holds: the thread has looked for signals just now and is not behind.
    pub fn is_well(&self) -> bool {
        let state = self.shared.state();
        !state.behind && state.verified.elapsed() < WELL
    }
}

/// The thread that listens for signals.
struct Thread {
    shared: Arc<Shared>,
    lister: Lister,
    mounts: Mounts,
    systems: Arc<FileSystems>,
    roots: Arc<[Root]>,
    inotify: Option<INotifyWatcher>,
    signals: Sender<Signal>,
}

impl Thread {
    fn run(mut self, signals: &Receiver<Signal>) {
        let mut plan = Plan::new();
        let mut warned = false;
        let mut try_at = Instant::now();
        loop {
            if self.inotify.is_none() && Instant::now() >= try_at {
                self.inotify = self.establish(&mut warned);
                try_at = Instant::now() + RETRY;
            }
            let due = plan.due(self.inotify.is_some());
            if due.is_zero() {
                plan.listed(self.list());
                continue;
            }
            match signals.recv_timeout(due.min(TURN)) {
                Ok(first) => {
                    let rest: Vec<Signal> = signals.try_iter().collect();
                    for signal in std::iter::once(first).chain(rest) {
                        match judge(&signal) {
                            Sign::Nothing => {}
                            Sign::Change => plan.change(),
                            Sign::Lost => {
                                self.inotify = None;
                                plan.change();
                            }
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Arc::strong_count(&self.shared) == 1 {
                return;
            }
            if self.mounts.changed(&self.roots) {
                // Watches stay with what was there before.
                self.systems.refresh();
                (self.inotify, try_at) = (None, Instant::now());
                plan.change();
            }
            if !plan.changed {
                self.shared.state().verified = Instant::now();
            }
        }
    }

    /// Lists all tables and passes on what came of it. Says how long it took, and what the listing found out.
    fn list(&self) -> Listed {
        let started = Instant::now();
        let answer = self.lister.list(PATIENCE, || self.shared.fall_behind());
        let Some(answer) = answer else {
            return Listed { took: started.elapsed(), unwatchable: true, unsettled: false };
        };
        self.shared.learn(answer.tables);
        Listed { took: started.elapsed(), unwatchable: answer.unwatchable, unsettled: answer.unsettled }
    }

    /// Watches the roots and all below. Where that can't be had, everything is polled.
    fn establish(&self, warned: &mut bool) -> Option<INotifyWatcher> {
        let signals = self.signals.clone();
        let handler = move |event| {
            // The thread is gone only when nobody wants to know.
            let _ = signals.send(Signal::Inotify(event));
        };
        let config = notify::Config::default().with_follow_symlinks(false);
        let watcher = INotifyWatcher::new(handler, config).and_then(|mut watcher| {
            for root in self.roots.iter() {
                if let Root::Folder(root) = root {
                    watcher.watch(root, RecursiveMode::Recursive)?;
                }
            }
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                if !std::mem::replace(warned, true) {
                    tracing::warn!(%error, "folders can't be watched and are polled; fs.inotify.max_user_watches may be too low");
                }
                None
            }
        }
    }
}

/// What a listing came to.
struct Listed {
    took: Duration,
    unwatchable: bool,
    unsettled: bool,
}

/// When the next listing is due.
struct Plan {
    changed: bool,
    alert_until: Instant,
    last: Instant,
    next: Instant,
    poll: bool,
    took: Duration,
}

impl Plan {
    fn new() -> Self {
        let now = Instant::now();
        Self { changed: true, alert_until: now, last: now - GAP, next: now, poll: false, took: Duration::ZERO }
    }

    fn change(&mut self) {
        self.changed = true;
        self.alert_until = Instant::now() + ALERT;
    }

    fn due(&self, watched: bool) -> Duration {
        let now = Instant::now();
        let next = if self.changed {
            self.last + GAP
        } else if watched {
            self.next
        } else {
            self.next.min(self.last + POLL.max(self.took * 20))
        };
        next.saturating_duration_since(now)
    }

    fn listed(&mut self, listed: Listed) {
        let now = Instant::now();
        (self.changed, self.last, self.took) = (false, now, listed.took);
        self.poll = listed.unwatchable;
        let wait = if listed.unsettled {
            TICK
        } else if now < self.alert_until {
            ALERT_POLL.max(listed.took * 2)
        } else if listed.unwatchable {
            POLL.max(listed.took * 20)
        } else {
            SAFETY.max(listed.took * 50)
        };
        self.next = now + wait;
    }
}

/// What a signal means.
enum Sign {
    Nothing,
    Change,
    /// Events were lost, or a watch was.
    Lost,
}

fn judge(signal: &Signal) -> Sign {
    let event = match signal {
        Signal::Bucket => return Sign::Change,
        Signal::Inotify(Ok(event)) => event,
        Signal::Inotify(Err(_)) => return Sign::Lost,
    };
    if event.need_rescan() {
        return Sign::Lost;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Sign::Change,
        // Queries read the files all the time.
        EventKind::Access(_) => Sign::Nothing,
        _ => Sign::Change,
    }
}

#[cfg(test)]
mod tests;
