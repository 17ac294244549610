package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/enginetest"
)

// rowOf asks for a row by its key.
func rowOf(key string) *enginev1.ExecuteRequest {
	return &enginev1.ExecuteRequest{Rows: &enginev1.ReadRows{Key: &enginev1.RowKey{Values: []string{key}}}}
}

// known answers each request with its key, but for those of the key "cold".
func known(request *enginev1.PeekRequest) *enginev1.PeekResponse {
	response := &enginev1.PeekResponse{}
	for _, one := range request.GetRequests() {
		key := one.GetRows().GetKey().GetValues()[0]
		answer := &enginev1.Peeked{}
		if key != "cold" {
			answer.Header = &enginev1.ExecuteHeader{Cacheable: true}
			answer.Body, answer.Receipt = []byte(key), &enginev1.Receipt{Rows: 1}
		}
		response.Answers = append(response.Answers, answer)
	}
	return response
}

// ask executes a request and returns its body, which comes whole.
func ask(ctx context.Context, client *Client, request *enginev1.ExecuteRequest) (string, error) {
	result, err := client.Execute(ctx, request)
	if err != nil {
		return "", err
	}
	defer result.Close()
	body, err := result.Next()
	if err == nil {
		if _, err = result.Next(); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err == nil && !result.Whole() {
		err = errors.New("it did not come whole")
	}
	return string(body), err
}

func TestPeekComesFirst(t *testing.T) {
	double := enginetest.New(t)
	double.OnExecute = func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		return enginetest.Send(stream, []byte("executed"))
	}
	peeks := 0
	double.OnPeek = func(request *enginev1.PeekRequest) (*enginev1.PeekResponse, error) {
		if peeks++; peeks == 3 {
			return nil, status.Error(codes.Internal, "no")
		}
		return known(request), nil
	}
	double.Start(t)
	client := dial(t, double)
	if err := client.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what, body string
		request    *enginev1.ExecuteRequest
		peeks      int
	}{
		{"a row in memory", "7", rowOf("7"), 1},
		{"a row that is not", "executed", rowOf("cold"), 2},
		{"a peek that fails", "executed", rowOf("7"), 3},
		{"a statement", "executed", &enginev1.ExecuteRequest{Sql: "SELECT 1"}, 3},
		{"rows in an order", "executed", &enginev1.ExecuteRequest{Rows: &enginev1.ReadRows{OrderBy: []*enginev1.OrderTerm{{}}}}, 3},
	} {
		body, err := ask(t.Context(), client, step.request)
		if body != step.body || err != nil || peeks != step.peeks {
			t.Errorf("%s: %q, %v, after %d peeks", step.what, body, err, peeks)
		}
	}
}

// Those who ask while a call is under way go together by the next ones; one who leaves takes nobody along.
func TestPeeksGather(t *testing.T) {
	double := enginetest.New(t)
	var mu sync.Mutex
	var sizes []int
	first, release := make(chan struct{}), make(chan struct{})
	double.OnPeek = func(request *enginev1.PeekRequest) (*enginev1.PeekResponse, error) {
		mu.Lock()
		sizes = append(sizes, len(request.GetRequests()))
		mu.Unlock()
		if request.GetRequests()[0].GetRows().GetKey().GetValues()[0] == "first" {
			close(first)
			<-release
		}
		return known(request), nil
	}
	double.Start(t)
	client := dial(t, double)
	if err := client.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { client.peeks.ask(gone, rowOf("first")) })
	<-first
	leave()
	const askers = peekMany - 1
	for i := range askers {
		group.Go(func() {
			key := fmt.Sprint(i)
			if answer := client.peeks.ask(t.Context(), rowOf(key)); answer == nil || string(answer.pending) != key {
				t.Errorf("%s got %v", key, answer)
			}
		})
	}
	for waiting := 0; waiting < askers; time.Sleep(time.Millisecond) {
		client.peeks.mu.Lock()
		waiting = len(client.peeks.waiting)
		client.peeks.mu.Unlock()
	}
	close(release)
	group.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(sizes) != 2 || sizes[0] != 1 || sizes[1] != askers {
		t.Errorf("calls of %v requests, want 1 and %d", sizes, askers)
	}
}
