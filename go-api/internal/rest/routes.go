package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
)

// route is one HTTP binding of a public method, read from its google.api.http annotation.
type route struct {
	method   string
	template string
	segments []string
	input    protoreflect.MessageDescriptor
	// hasBody says that the body holds the whole request message (`body: "*"`).
	hasBody bool
	// streams says that the answer is encoded rows, in whatever format was agreed on.
	streams bool
}

// publicRoutes lists the bindings of every service of quern.v1.
func publicRoutes() []route {
	var routes []route
	for _, file := range []protoreflect.FileDescriptor{
		quernv1.File_quern_v1_table_service_proto,
		quernv1.File_quern_v1_query_service_proto,
	} {
		services := file.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				routes = append(routes, methodRoutes(methods.Get(j))...)
			}
		}
	}
	return routes
}

func methodRoutes(method protoreflect.MethodDescriptor) []route {
	options, _ := method.Options().(*descriptorpb.MethodOptions)
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	if rule == nil {
		return nil
	}
	var routes []route
	for _, binding := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
		r := route{input: method.Input(), hasBody: binding.GetBody() == "*", streams: method.IsStreamingServer()}
		switch pattern := binding.GetPattern().(type) {
		case *annotations.HttpRule_Get:
			r.method, r.template = http.MethodGet, pattern.Get
		case *annotations.HttpRule_Post:
			r.method, r.template = http.MethodPost, pattern.Post
		default:
			continue
		}
		r.segments = strings.Split(strings.TrimPrefix(r.template, "/"), "/")
		routes = append(routes, r)
	}
	return routes
}

// spelled is the path that the route is found by: results' parameters may hold an escaped slash, which the gateway takes
// for one that parts segments.
func (r *route) spelled(path *url.URL) string {
	if r.streams {
		return path.EscapedPath()
	}
	return path.Path
}

// matches says whether the path fits the template, `{name}` standing for one segment that is not empty.
func (r *route) matches(path string) bool {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	return slices.EqualFunc(r.segments, segments, func(want, got string) bool {
		return want == got || (strings.HasPrefix(want, "{") && got != "") || escapes(got, want)
	})
}

// escapes says whether a segment is another spelling of a template's word, such as rows%3AbatchGet.
func escapes(segment, word string) bool {
	plain, err := url.PathUnescape(segment)
	return err == nil && plain == word && segment != word
}

// parameter returns what stands for `{name}` in the path of a result.
func (r *route) parameter(path *url.URL, name string) string {
	segments := strings.Split(strings.TrimPrefix(r.spelled(path), "/"), "/")
	at := slices.Index(r.segments, "{"+name+"}")
	if at < 0 || at >= len(segments) {
		return ""
	}
	// A URL that was parsed has no broken escapes.
	value, _ := url.PathUnescape(segments[at])
	return value
}

// pathNames lists the fields that the path holds.
func (r *route) pathNames() []string {
	var names []string
	for _, segment := range r.segments {
		if name, found := strings.CutPrefix(segment, "{"); found {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

// queryField returns the request's field that a query parameter of that name sets, or nil.
func (r *route) queryField(name string) protoreflect.FieldDescriptor {
	if slices.Contains(r.segments, "{"+name+"}") {
		return nil
	}
	if r.hasBody && name != formatField {
		return nil
	}
	return r.input.Fields().ByName(protoreflect.Name(name))
}

// queryNames lists the query parameters that the route knows.
func (r *route) queryNames() []string {
	var names []string
	fields := r.input.Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); r.queryField(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// find returns the route for a request. HEAD is answered wherever GET is.
func find(routes []route, method string, path *url.URL) (*route, []string, error) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for i := range routes {
		if routes[i].method == method && routes[i].template == path.Path {
			return &routes[i], nil, nil
		}
	}
	var allowed []string
	for i := range routes {
		if !routes[i].matches(routes[i].spelled(path)) {
			continue
		}
		if routes[i].method == method {
			return &routes[i], nil, nil
		}
		allowed = append(allowed, routes[i].method)
		if routes[i].method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	if len(allowed) == 0 {
		return nil, nil, apierr.Newf(apierr.RouteUnknown, "no resource at %s; the API begins at /v1/tables and /v1/query", shown(path.Path))
	}
	allowed = append(allowed, http.MethodOptions)
	slices.Sort(allowed)
	return nil, allowed, apierr.Newf(apierr.MethodNotAllowed, "%s takes %s, not %s", shown(path.Path), strings.Join(allowed, ", "), shown(method))
}

// shown cuts what a caller sent to a length that a message bears.
func shown(text string) string {
	const most = 120
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}
