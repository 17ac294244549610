package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"net/http"

	"github.com/dunglas/httpsfv"
)

const headerReprDigest = "Repr-Digest"

// digests adds a Repr-Digest trailer (RFC 9530) to a good answer where Want-Repr-Digest asks for sha-256. It stands
// outside the compressor: the digest is of the representation as it is sent, content coding included.
func digests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead || !wantsSHA256(r.Header) {
			next.ServeHTTP(w, r)
			return
		}
		digest := &digester{ResponseWriter: w, control: http.NewResponseController(w)}
		next.ServeHTTP(digest, r)
		if digest.sum != nil {
			w.Header().Set(headerReprDigest, "sha-256=:"+base64.StdEncoding.EncodeToString(digest.sum.Sum(nil))+":")
		}
	})
}

// wantsSHA256 reads the preference 1 to 10 of sha-256; 0 says no, and so does whatever can't be read (RFC 9530, 4).
func wantsSHA256(header http.Header) bool {
	lines := header.Values("Want-Repr-Digest")
	if len(lines) == 0 {
		return false
	}
	wanted, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return false
	}
	member, _ := wanted.Get("sha-256")
	item, ok := member.(httpsfv.Item)
	if !ok {
		return false
	}
	preference, ok := item.Value.(int64)
	return ok && preference > 0
}

type digester struct {
	http.ResponseWriter

	control *http.ResponseController
	sum     hash.Hash
	begun   bool
}

// WriteHeader implements http.ResponseWriter.
func (d *digester) WriteHeader(code int) {
	if !d.begun && code >= http.StatusOK {
		d.begun = true
		if code == http.StatusOK {
			d.sum = sha256.New()
			d.Header().Add("Trailer", headerReprDigest)
		}
	}
	d.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (d *digester) Write(data []byte) (int, error) {
	if !d.begun {
		d.WriteHeader(http.StatusOK)
	}
	n, err := d.ResponseWriter.Write(data)
	if d.sum != nil {
		d.sum.Write(data[:n])
	}
	return n, err
}

// Flush implements http.Flusher.
func (d *digester) Flush() { _ = d.control.Flush() }

// Unwrap serves http.ResponseController.
func (d *digester) Unwrap() http.ResponseWriter { return d.ResponseWriter }
