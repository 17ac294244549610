package cache

import (
	"crypto/sha256"
	"hash"
)

// Key names requests whose answers are interchangeable.
type Key [sha256.Size]byte

// KeyOf hashes the parts of a request in order.
func KeyOf(parts ...string) Key {
	digest := sha256.New()
	for _, part := range parts {
		writePart(digest, part)
	}
	return sum(digest)
}

func sum(digest hash.Hash) Key {
	var key Key
	digest.Sum(key[:0])
	return key
}

// with returns the key for an engine of that build.
func (k Key) with(build string) Key {
	var room [128]byte
	return sha256.Sum256(append(append(room[:0], k[:]...), build...))
}
