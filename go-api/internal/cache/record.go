package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// recordMagic begins every record and names its form; another form gets another one.
const recordMagic = "quern-entry-3\n"

// errRecord says that a record is not one, or not whole.
var errRecord = errors.New("the record is damaged")

// A record is an entry as the shared level keeps it:
//
//	magic, key, rows, bytes, digest of the receipt, count of snapshots, each table and id, next page's token, how many
//	total sizes follow, the one that does, count of missing keys, each one's number, body, SHA-256 of all before
//
// Numbers are unsigned varints, texts and the body have their length before them. A body of a result too large to keep
// is left out, and its length is written as the largest number.
const noBody = 1<<64 - 1

// encodeRecord writes a record. Without an entry it says that the answer is too large to keep.
func encodeRecord(key Key, snapshots []Snapshot, entry *Entry) []byte {
	record := append([]byte(recordMagic), key[:]...)
	var receipt Receipt
	if entry != nil {
		receipt = entry.Receipt
	}
	record = binary.AppendUvarint(record, receipt.Rows)
	record = binary.AppendUvarint(record, receipt.Bytes)
	record = append(record, receipt.SHA256[:]...)
	record = appendSnapshots(record, snapshots)
	var header Header
	if entry != nil {
		header = entry.Header
	}
	record = appendText(record, header.NextPageToken)
	if header.TotalSize == nil {
		record = binary.AppendUvarint(record, 0)
	} else {
		record = binary.AppendUvarint(binary.AppendUvarint(record, 1), *header.TotalSize)
	}
	record = binary.AppendUvarint(record, uint64(len(header.Missing)))
	for _, number := range header.Missing {
		record = binary.AppendUvarint(record, uint64(number))
	}
	if entry == nil {
		record = binary.AppendUvarint(record, noBody)
	} else {
		record = append(binary.AppendUvarint(record, uint64(len(entry.Body))), entry.Body...)
	}
	return seal(record)
}

func appendSnapshots(record []byte, snapshots []Snapshot) []byte {
	record = binary.AppendUvarint(record, uint64(len(snapshots)))
	for _, snapshot := range snapshots {
		record = appendText(appendText(record, snapshot.Table), snapshot.ID)
	}
	return record
}

func appendText(record []byte, text string) []byte {
	return append(binary.AppendUvarint(record, uint64(len(text))), text...)
}

func seal(record []byte) []byte {
	sum := sha256.Sum256(record)
	return append(record, sum[:]...)
}

// unseal returns a record without its digest, checked.
func unseal(record []byte) (*parser, error) {
	if len(record) < sha256.Size {
		return nil, errRecord
	}
	body, sum := record[:len(record)-sha256.Size], record[len(record)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(want[:], sum) {
		return nil, errRecord
	}
	return &parser{rest: body}, nil
}

// decodeRecord reads the record of a request, vouched for at the time came, or by the watch alone. No entry and no error say that the answer is too large to keep.
func decodeRecord(record []byte, key Key, snapshots []Snapshot, came time.Time) (*Entry, error) {
	p, err := unseal(record)
	if err != nil {
		return nil, err
	}
	var receipt Receipt
	p.literal([]byte(recordMagic))
	p.literal(key[:])
	receipt.Rows, receipt.Bytes = p.number(), p.number()
	copy(receipt.SHA256[:], p.take(sha256.Size))
	// The name of the record is made from these: another list is another record under a wrong name.
	p.literal(appendSnapshots(nil, snapshots))
	header := Header{Snapshots: snapshots, Cacheable: true, NextPageToken: string(p.take(p.number()))}
	if p.number() > 0 {
		size := p.number()
		header.TotalSize = &size
	}
	for range p.number() {
		if p.failed {
			break
		}
		header.Missing = append(header.Missing, uint32(p.number())) //nolint:gosec // what was written was one
	}
	length := p.number()
	if p.failed {
		return nil, errRecord
	}
	if length == noBody {
		return nil, nil
	}
	if length != uint64(len(p.rest)) {
		return nil, errRecord
	}
	return newEntry(key, header, receipt, bytes.Clone(p.rest), came), nil
}

// tablesMagic begins the record of what a request reads.
const tablesMagic = "quern-tables-1\n"

func encodeTables(k known) []byte {
	record := append([]byte(tablesMagic), 0)
	if k.cacheable {
		record[len(record)-1] = 1
	}
	record = binary.AppendUvarint(record, uint64(len(k.tables)))
	for _, table := range k.tables {
		record = appendText(record, table)
	}
	return seal(record)
}

func decodeTables(record []byte) (known, error) {
	p, err := unseal(record)
	if err != nil {
		return known{}, err
	}
	p.literal([]byte(tablesMagic))
	k := known{cacheable: bytes.Equal(p.take(1), []byte{1})}
	for range p.number() {
		if p.failed {
			break
		}
		k.tables = append(k.tables, string(p.take(p.number())))
	}
	if p.failed || len(p.rest) > 0 {
		return known{}, errRecord
	}
	return k, nil
}

// parser reads a record; after a failure it reads nothing more.
type parser struct {
	rest   []byte
	failed bool
}

func (p *parser) number() uint64 {
	value, size := binary.Uvarint(p.rest)
	if size <= 0 {
		p.failed = true
		return 0
	}
	p.rest = p.rest[size:]
	return value
}

func (p *parser) take(length uint64) []byte {
	if p.failed || length > uint64(len(p.rest)) {
		p.failed = true
		return nil
	}
	taken := p.rest[:length]
	p.rest = p.rest[length:]
	return taken
}

func (p *parser) literal(want []byte) {
	if !bytes.Equal(p.take(uint64(len(want))), want) {
		p.failed = true
	}
}
