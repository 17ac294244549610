// Command quern serves folders of data files as a REST and gRPC data API.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/quern-data/quern/go-api/internal/cli"
)

func main() {
	if err := cli.New(os.Stdout, os.Stderr).ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "quern:", err)
		os.Exit(1)
	}
}
