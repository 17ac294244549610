package rest

import (
	"net/http"
	"strings"

	"github.com/elnormous/contenttype"

	"github.com/quern-data/quern/go-api/internal/apierr"
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
