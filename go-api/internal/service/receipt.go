package service

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/dunglas/httpsfv"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/cache"
)

func publicReceipt(receipt cache.Receipt, read []cache.Snapshot) *quernv1.Receipt {
	public := &quernv1.Receipt{
		Rows:   publicCount(receipt.Rows),
		Bytes:  publicCount(receipt.Bytes),
		Digest: digestMember(receipt),
	}
	for _, snapshot := range read {
		if public.Snapshots == nil {
			public.Snapshots = make(map[string]string, len(read))
		}
		public.Snapshots[snapshot.Table] = snapshot.ID
	}
	return public
}

func digestMember(receipt cache.Receipt) string {
	return "sha-256=:" + base64.StdEncoding.EncodeToString(receipt.SHA256[:]) + ":"
}

// FormatMissing writes the numbers of the keys that no row has as an RFC 9651 list of integers, the value of the header
// Quern-Missing.
func FormatMissing(numbers []uint32) string {
	words := make([]string, len(numbers))
	for i, number := range numbers {
		words[i] = strconv.FormatUint(uint64(number), 10)
	}
	return strings.Join(words, ", ")
}

// mostInteger is the largest that a structured field can hold (RFC 9651, 3.3.1).
const mostInteger = 999_999_999_999_999

// FormatReceipt writes a receipt as an RFC 9651 dictionary, the value of the Quern-Receipt trailer:
//
//	rows=3, bytes=120, digest="sha-256=:…:", snapshots=("flights";id="9f2c" "airports";id="11ab")
//
// Tables stand in the order of their names.
func FormatReceipt(receipt cache.Receipt, read []cache.Snapshot) (string, error) {
	snapshots, err := formatSnapshots(read)
	if err != nil {
		return "", fmt.Errorf("write a receipt: %w", err)
	}
	var room [256]byte
	line := strconv.AppendUint(append(room[:0], "rows="...), min(receipt.Rows, mostInteger), 10)
	line = strconv.AppendUint(append(line, ", bytes="...), min(receipt.Bytes, mostInteger), 10)
	line = append(append(line, `, digest="`...), digestMember(receipt)...)
	return string(append(append(line, `", `...), snapshots...)), nil
}

// formatted is what the receipt before says of its snapshots: of one-row answers the next one mostly says the same.
type formatted struct {
	read []cache.Snapshot
	text string
}

var lastFormatted atomic.Pointer[formatted]

// formatSnapshots writes a receipt's member of that name.
func formatSnapshots(read []cache.Snapshot) (string, error) {
	if last := lastFormatted.Load(); last != nil && slices.Equal(last.read, read) {
		return last.text, nil
	}
	snapshots := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, snapshot := range read {
		item := httpsfv.NewItem(snapshot.Table)
		item.Params.Add("id", snapshot.ID)
		snapshots.Items = append(snapshots.Items, item)
	}
	dictionary := httpsfv.NewDictionary()
	dictionary.Add("snapshots", snapshots)
	text, err := httpsfv.Marshal(dictionary)
	if err != nil {
		return "", err
	}
	lastFormatted.Store(&formatted{read: slices.Clone(read), text: text})
	return text, nil
}
