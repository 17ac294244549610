package cache

import (
	"crypto/sha256"
	"encoding/binary"
)

// Key names requests whose answers are interchangeable.
type Key [sha256.Size]byte

// hashRoom is how much is hashed without memory of its own.
const hashRoom = 512

// KeyOf hashes the parts of a request in order.
func KeyOf(parts ...string) Key {
	var room [hashRoom]byte
	text := room[:0]
	for _, part := range parts {
		text = appendPart(text, part)
	}
	return sha256.Sum256(text)
}

// appendPart keeps parts from running together by writing their length first.
func appendPart(text []byte, part string) []byte {
	return append(binary.LittleEndian.AppendUint64(text, uint64(len(part))), part...)
}

// with returns the key for an engine of that build.
func (k Key) with(build string) Key {
	var room [128]byte
	return sha256.Sum256(append(append(room[:0], k[:]...), build...))
}
