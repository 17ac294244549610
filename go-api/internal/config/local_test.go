package config

import "testing"

func TestLocalURL(t *testing.T) {
	for address, want := range map[string]string{
		"": "http://127.0.0.1:8080", ":80": "http://localhost:80", "0.0.0.0:80": "http://localhost:80",
		"[::]:80": "http://localhost:80", "[::1]:80": "http://[::1]:80", "edge:80": "http://edge:80",
	} {
		got, err := LocalURL(func(name string) (string, bool) { return address, name == "QUERN_HTTP" && address != "" })
		if err != nil || got != want {
			t.Errorf("%q: got %q %v, want %q", address, got, err, want)
		}
	}
	secure := map[string]string{"QUERN_HTTP": ":8443", "QUERN_TLS_CERT": "tls.crt"}
	got, err := LocalURL(func(name string) (string, bool) { value, ok := secure[name]; return value, ok })
	if err != nil || got != "https://localhost:8443" {
		t.Errorf("with TLS: got %q %v", got, err)
	}
	if _, err := LocalURL(func(string) (string, bool) { return "8080", true }); err == nil {
		t.Error("an address without a port is none")
	}
}
