package service

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

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

// FormatReceipt writes a receipt as an RFC 9651 dictionary, the value of the Quern-Receipt trailer:
//
//	rows=3, bytes=120, digest="sha-256=:…:", snapshots=("flights";id="9f2c" "airports";id="11ab")
//
// Tables stand in the order of their names.
func FormatReceipt(receipt cache.Receipt, read []cache.Snapshot) (string, error) {
	dictionary := httpsfv.NewDictionary()
	dictionary.Add("rows", httpsfv.NewItem(publicCount(receipt.Rows)))
	dictionary.Add("bytes", httpsfv.NewItem(publicCount(receipt.Bytes)))
	dictionary.Add("digest", httpsfv.NewItem(digestMember(receipt)))
	snapshots := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, snapshot := range read {
		item := httpsfv.NewItem(snapshot.Table)
		item.Params.Add("id", snapshot.ID)
		snapshots.Items = append(snapshots.Items, item)
	}
	dictionary.Add("snapshots", snapshots)
	line, err := httpsfv.Marshal(dictionary)
	if err != nil {
		return "", fmt.Errorf("write a receipt: %w", err)
	}
	return line, nil
}
