package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Authority signs certificates, as cert-manager's issuer does.
type Authority struct {
	// PEM is its own certificate.
	PEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// between is what a certificate must bring along, in PEM, for who knows PEM alone.
	between []byte
}

// NewAuthority makes one that nobody knows yet.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	return newAuthority(t, nil)
}

// Intermediate makes one that is trusted by those who trust a.
func (a *Authority) Intermediate(t testing.TB) *Authority {
	t.Helper()
	return newAuthority(t, a)
}

func newAuthority(t testing.TB, above *Authority) *Authority {
	t.Helper()
	number := serial(t)
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{CommonName: "test authority " + number.String()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	signer, signerKey := template, key
	if above != nil {
		signer, signerKey = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	authority := &Authority{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert: cert, key: key}
	if above != nil {
		authority.PEM, authority.between = above.PEM, append(authority.PEM, above.between...)
	}
	return authority
}

// Pool returns the authority as one to trust.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue signs a certificate for names of DNS, IP addresses and URIs. It returns the files of a Secret of cert-manager.
func (a *Authority) Issue(t testing.TB, names ...string) map[string][]byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if uri, err := url.Parse(name); err == nil && strings.Contains(name, "://") {
			template.URIs = append(template.URIs, uri)
		} else if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"tls.crt": append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.between...),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"ca.crt":  a.PEM,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return number
}

// Secret is a folder as Kubernetes mounts one: its files are links through ..data to a folder that is exchanged as a whole.
type Secret struct {
	dir     string
	version int
}

// NewSecret mounts files.
func NewSecret(t testing.TB, files map[string][]byte) *Secret {
	t.Helper()
	s := &Secret{dir: t.TempDir()}
	s.Replace(t, files)
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), s.Path(name)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Path returns the path of a file.
func (s *Secret) Path(name string) string { return filepath.Join(s.dir, name) }

// Replace exchanges all files at once.
func (s *Secret) Replace(t testing.TB, files map[string][]byte) {
	t.Helper()
	s.version++
	version := "..version_" + strconv.Itoa(s.version)
	if err := os.Mkdir(s.Path(version), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.Path(version), name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(version, s.Path("..data_tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.Path("..data_tmp"), s.Path("..data")); err != nil {
		t.Fatal(err)
	}
}
