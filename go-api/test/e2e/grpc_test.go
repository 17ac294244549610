package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	// The generated packages put the methods' descriptors into the registry.
	_ "github.com/quern-data/quern/go-api/gen/quern/v1"

	_ "google.golang.org/grpc/health/grpc_health_v1"
)

// overGRPC calls the method and compares: `json` with the list of messages, `text` and `contains` with all
// their HttpBody data in one.
func (s step) overGRPC(t *testing.T, address string) error {
	t.Helper()
	method, err := findMethod(s.GRPC)
	if err != nil {
		return err
	}
	request := dynamicpb.NewMessage(method.Input())
	text, err := json.Marshal(s.Message)
	if err != nil {
		return err
	}
	if s.Message != nil {
		if err := protojson.Unmarshal(text, request); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	messages, header, err := call(ctx, connection, method, request)
	if err := checkHeaders("header metadata", s.Expect.Headers, header); err != nil {
		return err
	}
	return s.Expect.checkGRPC(messages, err)
}

func findMethod(name string) (protoreflect.MethodDescriptor, error) {
	service, method, found := strings.Cut(name, "/")
	if !found {
		return nil, fmt.Errorf("want `package.Service/Method`, got %q", name)
	}
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, err
	}
	services, ok := descriptor.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s is no service", service)
	}
	descriptorOf := services.Methods().ByName(protoreflect.Name(method))
	if descriptorOf == nil {
		return nil, fmt.Errorf("%s has no method %s", service, method)
	}
	return descriptorOf, nil
}

// call returns the messages and the response's header metadata.
func call(ctx context.Context, connection *grpc.ClientConn, method protoreflect.MethodDescriptor, request proto.Message) ([]proto.Message, http.Header, error) {
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path)
	if err != nil {
		return nil, nil, err
	}
	if err := stream.SendMsg(request); err != nil {
		return nil, nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, nil, err
	}
	header := http.Header{}
	var messages []proto.Message
	for {
		message := dynamicpb.NewMessage(method.Output())
		err := stream.RecvMsg(message)
		if len(header) == 0 {
			md, _ := stream.Header()
			for name, lines := range md {
				header[http.CanonicalHeaderKey(name)] = lines
			}
		}
		if errors.Is(err, io.EOF) {
			return messages, header, nil
		}
		if err != nil {
			return messages, header, err
		}
		messages = append(messages, message)
	}
}

func (e expectation) checkGRPC(messages []proto.Message, failure error) error {
	if failure != nil || (e.Code != "" && e.Code != "OK") {
		if e.Code == "" || e.Code == "OK" {
			return failure
		}
		answer := status.Convert(failure)
		var reasons []string
		for _, detail := range answer.Details() {
			if info, ok := detail.(*errdetails.ErrorInfo); ok {
				reasons = append(reasons, info.GetReason())
			}
		}
		return e.compareError(code.Code_name[int32(answer.Code())], reasons, answer.Message()) //nolint:gosec // Codes are small.
	}
	var list []any
	var data []byte
	for _, message := range messages {
		text, err := protojson.Marshal(message)
		if err != nil {
			return err
		}
		value, err := parse(text)
		if err != nil {
			return err
		}
		list = append(list, value)
		data = append(data, httpBody(message)...)
	}
	if e.JSON != nil {
		if err := contains(e.JSON, any(list), "$"); err != nil {
			return err
		}
	}
	e.JSON = nil
	return e.checkBody(data)
}

// httpBody returns the `body.data` of a message that has one.
func httpBody(message proto.Message) []byte {
	reflected := message.ProtoReflect()
	body := reflected.Descriptor().Fields().ByName("body")
	if body == nil || !reflected.Has(body) {
		return nil
	}
	inner := reflected.Get(body).Message()
	return inner.Get(inner.Descriptor().Fields().ByName("data")).Bytes()
}
