package engine

import (
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// chunkField is the number of ExecuteResponse.chunk.
const chunkField protowire.Number = 2

// codec decodes the chunks of a result with one copy instead of two: from the transport's frames into one buffer that
// the message then shares. Answers from memory have buffers of a fitting size. Everything else is left to the standard
// codec.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(grpcproto.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	response, ok := message.(*enginev1.ExecuteResponse)
	if !ok {
		if peeked, ok := message.(*enginev1.PeekResponse); ok {
			return unmarshalPeekResponse(data, peeked)
		}
		if err := c.CodecV2.Unmarshal(data, message); err != nil {
			return fmt.Errorf("decode an engine message: %w", err)
		}
		return nil
	}
	// Materialize always copies, so the frames may go back to the transport's pool while the chunk is in use.
	return unmarshalExecuteResponse(data.Materialize(), response)
}

// frames holds buffers that the frames of an answer are put together in. The transport's own pool has none of their size:
// it would clear a megabyte for each.
var frames = sync.Pool{New: func() any { return new([]byte) }}

// unmarshalPeekResponse decodes many small answers, each into memory of its own.
func unmarshalPeekResponse(data mem.BufferSlice, response *enginev1.PeekResponse) error {
	scratch, _ := frames.Get().(*[]byte)
	defer frames.Put(scratch)
	*scratch = slices.Grow((*scratch)[:0], data.Len())[:data.Len()]
	data.CopyTo(*scratch)
	if err := proto.Unmarshal(*scratch, response); err != nil {
		return fmt.Errorf("decode an engine message: %w", err)
	}
	return nil
}

func unmarshalExecuteResponse(raw []byte, response *enginev1.ExecuteResponse) error {
	if chunk, ok := soleChunk(raw); ok {
		response.Part = &enginev1.ExecuteResponse_Chunk{Chunk: chunk}
		return nil
	}
	if err := proto.Unmarshal(raw, response); err != nil {
		return fmt.Errorf("decode an engine message: %w", err)
	}
	return nil
}

// soleChunk returns the chunk of a message that holds a chunk and nothing else.
func soleChunk(raw []byte) ([]byte, bool) {
	number, kind, length := protowire.ConsumeTag(raw)
	if length < 0 || number != chunkField || kind != protowire.BytesType {
		return nil, false
	}
	chunk, size := protowire.ConsumeBytes(raw[length:])
	if size < 0 || length+size != len(raw) {
		return nil, false
	}
	return chunk, true
}
