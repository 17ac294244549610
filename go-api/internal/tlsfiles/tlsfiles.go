// Package tlsfiles holds a certificate, its key and the authorities to trust as their files have them, and reads the
// files again when they change: cert-manager and Kubernetes replace them while the program runs. It knows nothing of
// what is served or called over them.
package tlsfiles

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how often the files are looked at. What has changed is taken when it has stayed the same for one
	// look, so that no certificate is paired with the key of another.
	lookEvery = time.Second
	// maxFile is the longest file that is read.
	maxFile = 1 << 20
)

// Files are the paths, all of PEM.
type Files struct {
	// Cert is the certificate, with what lies between it and its authority; Key is its private key.
	Cert, Key string
	// CA are the authorities that sign the other side's certificate; empty where it needs none.
	CA string
}

// contents are what is in the files, or why they can't be read.
type contents struct{ cert, key, ca, failure string }

// material is what the contents mean.
type material struct {
	pair        *tls.Certificate
	authorities *x509.CertPool
}

// Store is what is in force; handshakes take the newest, and connections that are up keep what they have.
type Store struct {
	files    Files
	seen     contents
	current  atomic.Pointer[material]
	failures atomic.Int64
}

// Open reads the files for the first time.
func Open(files Files) (*Store, error) {
	s := &Store{files: files, seen: files.read()}
	return s, s.take(s.seen)
}

// Follow looks at the files until ctx ends. What can't be used leaves in force what was.
func (s *Store) Follow(ctx context.Context, logger *slog.Logger) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for decided := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if found := s.files.read(); found != s.seen {
			s.seen, decided = found, false
			continue
		}
		if decided {
			continue
		}
		decided = true
		if err := s.take(s.seen); err != nil {
			s.failures.Add(1)
			logger.Error("certificates are wrong; those from before stay in force", "error", err)
			continue
		}
		logger.Info("certificates changed", "cert", s.files.Cert, "expires", s.Expires())
	}
}

// Expires returns when the certificate in force ends.
func (s *Store) Expires() time.Time { return s.current.Load().pair.Leaf.NotAfter }

// Failures counts the changes that could not be used.
func (s *Store) Failures() int64 { return s.failures.Load() }

// Server returns the configuration of a server that shows the certificate.
func (s *Store) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.current.Load().pair, nil
		},
	}
}

// Client returns the configuration of a client that shows the certificate, and calls only who has one of the
// authorities for the name: of DNS, an IP address, or a URI.
func (s *Store) Client(name string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return s.current.Load().pair, nil
		},
		// VerifyConnection checks all that would be checked, by the authorities that are in force now.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection:   func(state tls.ConnectionState) error { return s.verify(state.PeerCertificates, name) },
	}
}

// verify checks a server's chain and name.
func (s *Store) verify(chain []*x509.Certificate, name string) error {
	if len(chain) == 0 {
		return errors.New("it showed no certificate")
	}
	options := x509.VerifyOptions{
		Roots:         s.current.Load().authorities,
		Intermediates: x509.NewCertPool(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, between := range chain[1:] {
		options.Intermediates.AddCert(between)
	}
	if _, err := chain[0].Verify(options); err != nil {
		return err
	}
	if !strings.Contains(name, "://") {
		return chain[0].VerifyHostname(name)
	}
	for _, uri := range chain[0].URIs {
		if uri.String() == name {
			return nil
		}
	}
	return fmt.Errorf("the certificate is not for %s; it is for %v", name, chain[0].URIs)
}

// take puts contents into force.
func (s *Store) take(found contents) error {
	if found.failure != "" {
		return errors.New(found.failure)
	}
	pair, err := tls.X509KeyPair([]byte(found.cert), []byte(found.key))
	if err != nil {
		return fmt.Errorf("%s and %s are no certificate and its key in PEM: %w", s.files.Cert, s.files.Key, err)
	}
	next := &material{pair: &pair, authorities: x509.NewCertPool()}
	if s.files.CA != "" && !next.authorities.AppendCertsFromPEM([]byte(found.ca)) {
		return fmt.Errorf("%s holds no certificate in PEM", s.files.CA)
	}
	s.current.Store(next)
	return nil
}

func (f Files) read() contents {
	var found contents
	for _, file := range []struct {
		path string
		into *string
	}{{f.Cert, &found.cert}, {f.Key, &found.key}, {f.CA, &found.ca}} {
		if file.path == "" {
			continue
		}
		text, err := readFile(file.path)
		if err != nil {
			return contents{failure: err.Error()}
		}
		*file.into = text
	}
	return found
}

func readFile(path string) (string, error) {
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxFile {
		return "", fmt.Errorf("%s is over 1 MiB", path)
	}
	return string(text), nil
}
