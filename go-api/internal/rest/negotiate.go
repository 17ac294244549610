package rest

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/elnormous/contenttype"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/service"
)

// offers holds the media types that results can have, in the order of preference, and the format that each stands for.
var (
	offers      []contenttype.MediaType
	offerFormat = map[string]string{}
	jsonOffer   = []contenttype.MediaType{contenttype.NewMediaType("application/json")}
)

func init() {
	for _, format := range service.Formats {
		mediaType, _, _ := strings.Cut(format.MediaType, ";")
		if _, known := offerFormat[mediaType]; known {
			continue
		}
		offerFormat[mediaType] = format.Name
		offers = append(offers, contenttype.NewMediaType(mediaType))
	}
}

// formatByAccept returns the format that Accept prefers: the empty string where the header is absent, and
// service.NoFormat where it allows nothing that can be sent.
func formatByAccept(header http.Header) string {
	accept := strings.Join(header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return ""
	}
	best, _, err := contenttype.GetAcceptableMediaTypeFromHeader(accept, offers)
	if err != nil {
		return service.NoFormat
	}
	return offerFormat[best.MIME()]
}

// checkAcceptsJSON fails where Accept rules JSON out, for the resources that have no other form.
func checkAcceptsJSON(header http.Header) error {
	accept := strings.Join(header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return nil
	}
	if _, _, err := contenttype.GetAcceptableMediaTypeFromHeader(accept, jsonOffer); err != nil {
		return apierr.New(apierr.NotAcceptable, "this resource is application/json only, which `Accept` does not allow")
	}
	return nil
}

// codingByAccept returns the coding that Accept-Encoding prefers, zstd before gzip where it likes both the same. A caller
// who rules everything out gets the identity: RFC 9110, 12.5.3 lets a server disregard the header then.
func codingByAccept(header http.Header) cache.Coding {
	best, weight := cache.Identity, 0.0
	others := -1.0
	seen := map[cache.Coding]bool{}
	for _, line := range header.Values("Accept-Encoding") {
		for member := range strings.SplitSeq(line, ",") {
			name, q := codingMember(member)
			if name == "*" {
				others = q
				continue
			}
			for _, coding := range []cache.Coding{cache.Zstd, cache.Gzip} {
				if !strings.EqualFold(name, coding.String()) && (coding != cache.Gzip || !strings.EqualFold(name, "x-gzip")) {
					continue
				}
				seen[coding] = true
				if q > weight || (q == weight && q > 0 && coding == cache.Zstd) {
					best, weight = coding, q
				}
			}
		}
	}
	if others > weight && !seen[cache.Gzip] {
		return cache.Gzip
	}
	return best
}

// codingMember reads one member of Accept-Encoding: a name and its weight, 1 where none is given, 0 where it is wrong.
func codingMember(member string) (string, float64) {
	name, parameter, weighed := strings.Cut(member, ";")
	name = strings.TrimSpace(name)
	if !weighed {
		return name, 1
	}
	key, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || !strings.EqualFold(strings.TrimSpace(key), "q") || q < 0 || q > 1 {
		return name, 0
	}
	return name, q
}
