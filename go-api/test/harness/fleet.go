package harness

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Fleet is several engines over one folder behind one name, on loopback addresses of their own and one port, as the pods
// of a headless Service are.
type Fleet struct {
	// URL is what edges dial.
	URL string
	// Args are more flags of the engines that are started from now on.
	Args []string

	dir, port string
	names     *nameServer
	engines   map[string]*TCPEngine
}

// StartFleet starts engines on these addresses, such as 127.0.0.2, and names them. The test's end stops them.
func StartFleet(t testing.TB, dir string, addresses ...string) *Fleet {
	t.Helper()
	names := startNameServer(t)
	_, port, _ := net.SplitHostPort(freeAddress(t))
	f := &Fleet{
		URL: fmt.Sprintf("dns://%s/engines.test.:%s", names.address, port), Args: []string{"--log-level", "debug"},
		dir: dir, port: port, names: names, engines: map[string]*TCPEngine{},
	}
	for _, address := range addresses {
		f.Start(t, address)
	}
	f.Name(addresses...)
	return f
}

// Start starts an engine on an address, again after Kill or Terminate.
func (f *Fleet) Start(t testing.TB, address string) {
	t.Helper()
	f.engines[address] = StartTCPEngine(t, f.dir, append([]string{"--listen", "tcp://" + net.JoinHostPort(address, f.port)}, f.Args...)...)
}

// Name has the name mean these addresses.
func (f *Fleet) Name(addresses ...string) { f.names.set(addresses) }

// Planned returns how many statements an engine has planned.
func (f *Fleet) Planned(address string) int {
	return strings.Count(f.engines[address].Log(), `"planned"`)
}

// Signal sends an engine a signal.
func (f *Fleet) Signal(t testing.TB, address string, signal syscall.Signal) {
	t.Helper()
	if err := f.engines[address].cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// Kill ends an engine at once and waits for its end.
func (f *Fleet) Kill(t testing.TB, address string) {
	t.Helper()
	f.Signal(t, address, syscall.SIGKILL)
	f.engines[address].wait()
}

// Terminate has an engine end in its own time, and waits for that.
func (f *Fleet) Terminate(t testing.TB, address string) {
	t.Helper()
	f.Signal(t, address, syscall.SIGTERM)
	f.engines[address].wait()
}

// nameServer answers every question for IPv4 addresses with the same ones.
type nameServer struct {
	address string
	mu      sync.Mutex
	answers []netip.Addr
}

func startNameServer(t testing.TB) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &nameServer{address: conn.LocalAddr().String()}
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if reply, err := s.reply(buffer[:n]); err == nil {
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	return s
}

func (s *nameServer) set(addresses []string) {
	answers := make([]netip.Addr, 0, len(addresses))
	for _, address := range addresses {
		answers = append(answers, netip.MustParseAddr(address))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = answers
}

func (s *nameServer) reply(raw []byte) ([]byte, error) {
	var message dnsmessage.Message
	if err := message.Unpack(raw); err != nil {
		return nil, err
	}
	message.Response, message.RecursionAvailable, message.Additionals = true, true, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, question := range message.Questions {
		if question.Type != dnsmessage.TypeA {
			continue
		}
		for _, address := range s.answers {
			message.Answers = append(message.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: 5},
				Body:   &dnsmessage.AResource{A: address.As4()},
			})
		}
	}
	return message.Pack()
}
