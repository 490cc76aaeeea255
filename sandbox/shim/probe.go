package shim

import (
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"

	"github.com/rtask/rtask/sandbox/jail"
)

// Probe tells an engine that is not root's what no shim can give to a job here, since that shows in a shim's user namespace alone: it
// writes a map of switches and reasons in CBOR. An error is that there are no namespaces at all.
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
