package engine

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/cache"
)

// watchSilence is how long the watch may say nothing and still be live. The engine beats every 250 ms.
const watchSilence = time.Second

// watcher follows the engine's snapshots. The picture is replaced as a whole, so that readers need no lock.
type watcher struct {
	picture atomic.Pointer[cache.Picture]
	// first is closed with the first picture.
	first     chan struct{}
	firstOnce sync.Once
	// trusted says that the picture is whole: the stream is open and the engine not behind.
	trusted atomic.Bool
	// heard is when the last event came, in nanoseconds since started.
	heard   atomic.Int64
	started time.Time
}

func newWatcher() *watcher { return &watcher{started: time.Now(), first: make(chan struct{})} }

// AwaitPicture waits for the first picture, until ctx ends.
func (c *Client) AwaitPicture(ctx context.Context) {
	select {
	case <-c.snapshots.first:
	case <-ctx.Done():
	}
}

// Picture implements cache.Sources.
func (c *Client) Picture() (*cache.Picture, bool) {
	w := c.snapshots
	picture := w.picture.Load()
	return picture, picture != nil && w.trusted.Load() && w.silence() < watchSilence
}

// Silence implements cache.Sources.
func (c *Client) Silence() time.Duration { return c.snapshots.silence() }

func (w *watcher) silence() time.Duration {
	return time.Since(w.started) - time.Duration(w.heard.Load())
}

// Check implements cache.Sources.
func (c *Client) Check(ctx context.Context, tables []string) ([]cache.Snapshot, error) {
	answer, err := unary(ctx, c, catalogService, "CheckSnapshots", func(ctx context.Context) (*enginev1.CheckSnapshotsResponse, error) {
		return c.catalog.CheckSnapshots(ctx, &enginev1.CheckSnapshotsRequest{Tables: tables})
	})
	if err != nil {
		return nil, err
	}
	return snapshotsOf(answer.GetSnapshots()), nil
}

// catchUpWait is how long an answer that tells of a change waits at most for the watch to tell of it too.
const catchUpWait = 100 * time.Millisecond

// catchUp waits until the picture has a table as the sources themselves have it now. Who was told that a page's snapshot
// is gone starts again at once, and must not be given that snapshot's first page from memory.
func (c *Client) catchUp(ctx context.Context, table string) {
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	snapshots, err := c.Check(ctx, []string{table})
	if err != nil {
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if picture, live := c.Picture(); !live || picture.Shows(table, snapshots) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func snapshotsOf(sent []*enginev1.TableSnapshot) []cache.Snapshot {
	snapshots := make([]cache.Snapshot, 0, len(sent))
	for _, snapshot := range sent {
		snapshots = append(snapshots, cache.Snapshot{Table: snapshot.GetTable(), ID: snapshot.GetSnapshot()})
	}
	return snapshots
}

// follow keeps the picture true until ctx ends. A stream that breaks or falls silent is opened anew, with another engine
// where there is one.
func (w *watcher) follow(ctx context.Context, catalog enginev1.CatalogServiceClient) {
	ctx = context.WithValue(ctx, trailKey{}, &trail{})
	for ctx.Err() == nil {
		w.stream(ctx, catalog)
		w.trusted.Store(false)
		select {
		case <-time.After(settleDelay):
		case <-ctx.Done():
		}
	}
}

func (w *watcher) stream(ctx context.Context, catalog enginev1.CatalogServiceClient) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := catalog.WatchSnapshots(ctx, &enginev1.WatchSnapshotsRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return
	}
	// A connection that is up and says nothing is given up; a new stream starts with a whole picture.
	silence := time.AfterFunc(2*watchSilence, stop)
	defer silence.Stop()
	for {
		event, err := stream.Recv()
		if err != nil {
			return
		}
		silence.Reset(2 * watchSilence)
		w.take(event)
	}
}

// take applies one event. The picture is replaced before it is trusted again.
func (w *watcher) take(event *enginev1.WatchSnapshotsResponse) {
	switch event := event.GetEvent().(type) {
	case *enginev1.WatchSnapshotsResponse_Picture:
		w.replace(map[string]string{}, event.Picture.GetSnapshots(), nil, event.Picture.GetBuild())
	case *enginev1.WatchSnapshotsResponse_Changes:
		before := w.picture.Load()
		if before == nil {
			return
		}
		w.replace(maps.Clone(before.Snapshots), event.Changes.GetChanged(), event.Changes.GetRemoved(), before.Build)
	case *enginev1.WatchSnapshotsResponse_Behind:
		w.trusted.Store(false)
	}
	w.heard.Store(int64(time.Since(w.started)))
}

func (w *watcher) replace(snapshots map[string]string, changed []*enginev1.TableSnapshot, removed []string, build string) {
	for _, snapshot := range changed {
		snapshots[snapshot.GetTable()] = snapshot.GetSnapshot()
	}
	for _, table := range removed {
		delete(snapshots, table)
	}
	w.picture.Store(&cache.Picture{Snapshots: snapshots, Build: build})
	w.trusted.Store(true)
	w.firstOnce.Do(func() { close(w.first) })
}
