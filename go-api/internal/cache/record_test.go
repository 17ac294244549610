package cache

import (
	"reflect"
	"testing"
	"time"
)

func TestRecordsKeepWhatIsSaidBesideTheBody(t *testing.T) {
	snapshots := []Snapshot{{Table: "a", ID: "1"}}
	key, size := KeyOf("x"), uint64(1)<<63
	for _, header := range []Header{
		{Snapshots: snapshots, Cacheable: true},
		{Snapshots: snapshots, Cacheable: true, NextPageToken: "t"},
		{Snapshots: snapshots, Cacheable: true, NextPageToken: "t", TotalSize: new(uint64)},
		{Snapshots: snapshots, Cacheable: true, TotalSize: &size},
		{Snapshots: snapshots, Cacheable: true, Missing: []uint32{0, 7, 999}},
	} {
		record := encodeRecord(key, snapshots, newEntry(key, header, Receipt{Rows: 3}, []byte("body"), time.Now()))
		entry, err := decodeRecord(record, key, snapshots, time.Now())
		if err != nil || !reflect.DeepEqual(entry.Header, header) || string(entry.Body) != "body" || entry.Receipt.Rows != 3 {
			t.Errorf("%+v came back as %+v (%v)", header, entry, err)
		}
		for at := range record {
			wrong := append([]byte(nil), record...)
			wrong[at] ^= 1
			if _, err := decodeRecord(wrong, key, snapshots, time.Now()); err == nil {
				t.Errorf("a record with byte %d changed is taken", at)
			}
		}
	}
}
