package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/pflag"
)

// TLS are the files of TLS, and what may go without it.
type TLS struct {
	// Cert and Key are what the edge shows to those who call it; empty to serve without TLS.
	Cert, Key string
	// EngineCA signs the engine's certificate, and EngineCert and EngineKey are what the edge shows to the engine; empty
	// to call it without TLS.
	EngineCA, EngineCert, EngineKey string
	// EngineName is the name that the engine's certificate must have.
	EngineName string
	// PlainTCP lets an engine be called without TLS over a network.
	PlainTCP bool
}

func (t *TLS) register(flags *pflag.FlagSet) {
	flags.StringVar(&t.Cert, "tls-cert", "", "`file` of the certificate, with what lies between it and its authority, in PEM: TLS for --http and --grpc; read again when it changes")
	flags.StringVar(&t.Key, "tls-key", "", "`file` of the private key of --tls-cert, in PEM")
	flags.StringVar(&t.EngineCA, "engine-tls-ca", "", "`file` of the authorities that sign the engine's certificate, in PEM: TLS to --engine; read again when it changes")
	flags.StringVar(&t.EngineCert, "engine-tls-cert", "", "`file` of the certificate that the engine is shown, in PEM")
	flags.StringVar(&t.EngineKey, "engine-tls-key", "", "`file` of the private key of --engine-tls-cert, in PEM")
	flags.StringVar(&t.EngineName, "engine-tls-name", "", "DNS `name` or URI that the engine's certificate must have; without it, the host of --engine")
	flags.BoolVar(&t.PlainTCP, "plain-tcp", false, "call an engine beyond this machine without TLS: for networks that encrypt and authenticate on their own")
}

// ToEngine says whether the engine is called over TLS.
func (t *TLS) ToEngine() bool { return t.EngineCA != "" }

// check refuses what does not go together, and fills in the engine's name.
func (t *TLS) check(engine string) []error {
	var failures []error
	if (t.Cert == "") != (t.Key == "") {
		failures = append(failures, errors.New("--tls-cert and --tls-key go together: give both or none"))
	}
	files := t.EngineCA + t.EngineCert + t.EngineKey
	switch {
	case files == "" && t.EngineName != "":
		return append(failures, errors.New("--engine-tls-name needs --engine-tls-ca, --engine-tls-cert and --engine-tls-key"))
	case files != "" && (t.EngineCA == "" || t.EngineCert == "" || t.EngineKey == ""):
		return append(failures, errors.New("--engine-tls-ca, --engine-tls-cert and --engine-tls-key go together: give all three or none"))
	case files != "" && engine == "":
		return append(failures, errors.New("--engine-tls-ca, --engine-tls-cert and --engine-tls-key are for an engine that runs elsewhere: "+
			"name it with --engine URL, or leave them out, since a local engine is reached by a socket of its own"))
	case engine == "":
		return failures
	}
	host, network := engineHost(engine)
	if !network {
		if files != "" {
			failures = append(failures, fmt.Errorf("TLS is for --engine dns:///host:port or tcp://host:port, not for %s", engine))
		}
		return failures
	}
	if t.EngineName == "" {
		t.EngineName = host
	}
	if files == "" && !t.PlainTCP && !loopback(host) {
		failures = append(failures, fmt.Errorf("--engine %s would send all data over the network as it is, from whoever answers there: use TLS "+
			"(--engine-tls-ca, --engine-tls-cert, --engine-tls-key), or say --plain-tcp (QUERN_PLAIN_TCP=true) where the network itself "+
			"encrypts and keeps others out", engine))
	}
	return failures
}

// engineHost returns the host of dns:///host:port, dns://server/host:port or tcp://host:port, and whether engine is one
// of these.
func engineHost(engine string) (host string, network bool) {
	parsed, err := url.Parse(engine)
	if err != nil {
		return "", false
	}
	address := parsed.Host
	switch parsed.Scheme {
	case "tcp":
	case "dns":
		address = strings.Trim(parsed.Path, "/")
	default:
		return "", false
	}
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host, true
	}
	return strings.Trim(address, "[]"), true
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
