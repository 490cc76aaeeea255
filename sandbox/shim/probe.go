package shim

import (
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"

	"github.com/rtask/rtask/sandbox/jail"
)

// Probe tells a non-root engine what no shim can give to a job here, since that shows only in a shim's user namespace. It writes a map
// of switches and reasons in CBOR. It returns an error if namespaces do not work at all.
func Probe(w io.Writer) error {
	missing, err := jail.Missing()
	if err != nil {
		return err
	}
	if err := cbor.NewEncoder(w).Encode(missing); err != nil {
		return fmt.Errorf("cannot tell the engine: %w", err)
	}
	return nil
}
