package rpc

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
)

// sharing is an inprocgrpc.Cloner that hands a result's bytes over instead of copying them.
type sharing struct{}

// Clone implements inprocgrpc.Cloner.
func (sharing) Clone(in any) (any, error) { return in, nil }

// Copy implements inprocgrpc.Cloner.
func (sharing) Copy(out, in any) error {
	if from, ok := in.(*quernv1.QueryResponse); ok {
		to, ok := out.(*quernv1.QueryResponse)
		if !ok {
			return fmt.Errorf("copy a %T into a %T", in, out)
		}
		to.Receipt = from.GetReceipt()
		to.Body = from.GetBody()
		return nil
	}
	from, fromOK := in.(proto.Message)
	to, toOK := out.(proto.Message)
	if !fromOK || !toOK {
		return fmt.Errorf("copy a %T into a %T", in, out)
	}
	proto.Reset(to)
	proto.Merge(to, from)
	return nil
}
