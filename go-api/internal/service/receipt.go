package service

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	"github.com/dunglas/httpsfv"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
)

func publicReceipt(receipt *enginev1.Receipt) *quernv1.Receipt {
	public := &quernv1.Receipt{
		Rows:  publicCount(receipt.GetRows()),
		Bytes: publicCount(receipt.GetBytes()),
	}
	if sum := receipt.GetSha256(); len(sum) > 0 {
		public.Digest = "sha-256=:" + base64.StdEncoding.EncodeToString(sum) + ":"
	}
	for _, read := range receipt.GetSnapshots() {
		if public.Snapshots == nil {
			public.Snapshots = make(map[string]string, len(receipt.GetSnapshots()))
		}
		public.Snapshots[read.GetTable()] = read.GetSnapshot()
	}
	return public
}

// FormatReceipt writes a receipt as an RFC 9651 dictionary, the value of the Quern-Receipt trailer:
//
//	rows=3, bytes=120, digest="sha-256=:…:", snapshots=("flights";id="9f2c" "airports";id="11ab")
//
// Tables stand in the order of their names.
func FormatReceipt(receipt *quernv1.Receipt) (string, error) {
	dictionary := httpsfv.NewDictionary()
	dictionary.Add("rows", httpsfv.NewItem(receipt.GetRows()))
	dictionary.Add("bytes", httpsfv.NewItem(receipt.GetBytes()))
	dictionary.Add("digest", httpsfv.NewItem(receipt.GetDigest()))
	snapshots := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, table := range slices.Sorted(maps.Keys(receipt.GetSnapshots())) {
		item := httpsfv.NewItem(table)
		item.Params.Add("id", receipt.GetSnapshots()[table])
		snapshots.Items = append(snapshots.Items, item)
	}
	dictionary.Add("snapshots", snapshots)
	line, err := httpsfv.Marshal(dictionary)
	if err != nil {
		return "", fmt.Errorf("write a receipt: %w", err)
	}
	return line, nil
}
